"""Whether evidence maps point at what they explain: generated chips, whose things have a known place."""

from __future__ import annotations

from collections.abc import Sequence

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
VISIBLE, LARGEST = 0.3, 0.5
"""Share of a pixel that a thing must cover to be seen there; a thing on more of the chip has no place."""
SMALLEST = 5
"""Pixels that a thing must cover."""
PART = 0.25
"""Share of the chip that is looked at: the pixels with the most evidence."""


def pointing(model: str, chips: int = 40, first_row: int = 100_000, members: tuple[str, ...] = ()) -> None:
    """Which share of a thing lies in the quarter of the chip with the most evidence for its label.

    A map without a clue holds a quarter of it. A chip counts for a label that is on it and that the model
    predicts; the run has never seen these chips. (A network of 64 pixels has only 2 by 2 positions, so that
    single peaks, as in the pointing game of Zhang et al., ECCV 2016, cannot lie on small things.)

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
    table = Table(title=f"Share of a thing in the {PART:.0%} of the chip with most evidence")
    for column in ("label", "chips", "mean share", "95% interval"):
        table.add_column(column, justify="left" if column == "label" else "right")
    every: list[float] = []
    for label in OBJECTS:
        if label not in loaded.labels.names:
            continue
        found = shares(loaded, label, chips, first_row, config.data.generate.size, config.data.generate.seed)
        every += found
        table.add_row(label, *figures(found))
    table.add_row("all", *figures(every))
    Console(width=100).print(table)


def figures(found: Sequence[float]) -> tuple[str, str, str]:
    """Number of chips, mean, and normal 95% interval of the mean."""
    if len(found) < 2:
        return f"{len(found)}", "-", "-"
    mean, error = float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(len(found)))
    return f"{len(found)}", f"{mean:.2f}", f"{mean - 1.96 * error:.2f} to {mean + 1.96 * error:.2f}"


def shares(model: Model, label: str, chips: int, first_row: int, size: int, seed: int) -> list[float]:
    """The share on at most ``chips`` chips with ``label``."""
    found: list[float] = []
    for row, labels in drawn_labels(first_row, 60 * chips):
        if label not in labels or "cloudy" in labels or len(found) == chips:
            continue
        place_HW = paint_scene(labels, size, seed, row).evidence.get(label)
        if place_HW is None or place_HW.sum() < SMALLEST or (place_HW > VISIBLE).mean() > LARGEST:
            continue
        explanation = model.explain(render_chip(labels, size, seed, row))
        if not explanation.decisions_K[model.labels.index(label)]:
            continue
        found.append(share_in_top(place_HW, explanation.map_of(label)))
    return found


def share_in_top(place_HW: NDArray[np.float32], map_HW: NDArray[np.float32]) -> float:
    """Share of a place in the pixels of a map with the most evidence; equal pixels share what is left."""
    count = PART * map_HW.size
    cut = np.sort(map_HW, axis=None)[-int(count)]
    above_HW, equal_HW = map_HW > cut, map_HW == cut
    rest = (count - above_HW.sum()) / equal_HW.sum()
    return float((place_HW[above_HW].sum() + rest * place_HW[equal_HW].sum()) / place_HW.sum())


def drawn_labels(first_row: int, rows: int) -> list[tuple[int, tuple[str, ...]]]:
    """Rows from ``first_row`` on, each with labels as the generator draws them, rare ones raised to 5%."""
    from canopy.config import GenerateConfig

    config = GenerateConfig(rows=rows, seed=first_row, min_rate=0.05)
    true_NK = draw_labels(config).true_NK
    return [(first_row + n, labels) for n, labels in enumerate(LABELS.decode(true_NK))]
