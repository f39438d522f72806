"""How often the strongest evidence for a label lies on what it names, on generated chips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from canopy.data.synthetic.generate import LABELS, draw_labels
from canopy.data.synthetic.render import paint_scene, render_chip
from canopy.errors import ConfigError
from canopy.inference.load import load_model
from canopy.inference.model import Model
from canopy.storage.run_dir import RunDir

OBJECTS = (
    "agriculture", "artisinal_mine", "bare_ground", "blow_down", "conventional_mine", "cultivation",
    "habitation", "road", "selective_logging", "slash_burn", "water",
)  # fmt: skip
"""Labels of things that have a place; weather and forest are everywhere."""
VISIBLE = 0.3
"""Share of a pixel that the thing must cover."""
LARGEST = 0.5
"""Share of a chip above which a thing has no place that could be missed."""
REACH = 4
"""Distance in pixels (of a chip of 64) within which a peak counts as on the thing: one position of a map."""


@dataclass(frozen=True)
class Pointing:
    """Chips of one label.

    Args:
        hits: for each chip, whether the peak of the map lies on the thing.
        chance: for each chip, the share of pixels that would have been a hit.
    """

    hits: Sequence[bool]
    chance: Sequence[float]


def pointing(model: str, chips: int = 40, first_row: int = 100_000, members: tuple[str, ...] = ()) -> None:
    """The pointing game on chips that the run has never seen (Zhang et al., ECCV 2016).

    A chip counts for a label that is on it and that the model predicts. Chance is the share of the chip on
    which a peak would count, the expectation for a random pixel.

    Args:
        model: directory of a finished run over generated chips.
        chips: chips per label.
        first_row: row of the generator from which labels are drawn; the run's rows come before it.
        members: variants to use; empty for the run's ensemble.
    """
    config = RunDir(model).load_config()
    if config.data.source != "generated" or config.data.image_size != config.data.generate.size:
        need = "must be a run over generated chips of their own size"
        raise ConfigError("--model", need, config.data.source, "Run the preset demo.")
    loaded = load_model(model, members=members or None)
    table = Table(title=f"Pointing game, {model}")
    for column in ("label", "chips", "peak on the thing", "chance"):
        table.add_column(column, justify="left" if column == "label" else "right")
    every = Pointing([], [])
    for label in OBJECTS:
        if label not in loaded.labels.names:
            continue
        found = point(loaded, label, chips, first_row, config.data.generate.size, config.data.generate.seed)
        every = Pointing([*every.hits, *found.hits], [*every.chance, *found.chance])
        table.add_row(label, *figures(found))
    table.add_row("all", *figures(every))
    Console(width=100).print(table)


def figures(found: Pointing) -> tuple[str, str, str]:
    """Number of chips, rate of hits, rate by chance."""
    if not found.hits:
        return "0", "-", "-"
    return f"{len(found.hits)}", f"{np.mean(found.hits):.2f}", f"{np.mean(found.chance):.2f}"


def point(model: Model, label: str, chips: int, first_row: int, size: int, seed: int) -> Pointing:
    """Play the game on at most ``chips`` chips with ``label``."""
    hits, chance = [], []
    for row, labels in drawn_labels(first_row, 60 * chips):
        if label not in labels or "cloudy" in labels or len(hits) == chips:
            continue
        place_HW = paint_scene(labels, size, seed, row).evidence.get(label)
        if place_HW is None:
            continue
        target_HW = near(place_HW > VISIBLE, max(1, REACH * size // 64))
        if not target_HW.any() or target_HW.mean() > LARGEST:
            continue
        found = model.explain(render_chip(labels, size, seed, row))
        if not found.decisions_K[model.labels.index(label)]:
            continue
        hits.append(bool(target_HW[found.peak(label)]))
        chance.append(float(target_HW.mean()))
    return Pointing(hits, chance)


def drawn_labels(first_row: int, rows: int) -> list[tuple[int, tuple[str, ...]]]:
    """Rows from ``first_row`` on, each with labels as the generator draws them, rare ones raised to 5%."""
    from canopy.config import GenerateConfig

    config = GenerateConfig(rows=rows, seed=first_row, min_rate=0.05)
    true_NK = draw_labels(config).true_NK
    return [(first_row + n, labels) for n, labels in enumerate(LABELS.decode(true_NK))]


def near(mask_HW: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Pixels within ``reach`` rows and columns of the mask."""
    size = mask_HW.shape[0]
    padded = np.pad(mask_HW, reach)
    windows = [
        padded[row : row + size, column : column + size]
        for row in range(2 * reach + 1)
        for column in range(2 * reach + 1)
    ]
    found: NDArray[np.bool_] = np.any(windows, axis=0)
    return found
