"""Attention figures: test chips with the spatial attention of each CBAM block, one figure per variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from canopy.config import DataConfig
from canopy.data.augmentation_sheet import load_chips, resize_for_display, tile_side
from canopy.data.catalogue import Catalogue
from canopy.data.transforms.crop import center_crop
from canopy.data.transforms.normalize import normalize
from canopy.explain.tint import tint
from canopy.models.cbam import AttentionMaps, attention_maps
from canopy.models.network import MultiLabelNetwork
from canopy.report.image_grid import image_grid
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.trained_model import load_trained_model, weights_path
from canopy.train.training_run import TrainingRun

CHIPS = 8
"""Number of chips in a figure."""
COLUMNS = 8
"""Maximum number of tiles per row."""
FLAT = 0.02
"""Relative change of features below which a block counts as flat; the colors of flat blocks are faint."""


@dataclass(frozen=True)
class AttentionFigure:
    """The attention of one variant.

    Args:
        variant: name of the variant.
        lines: one line per block, from the first block to the last.
        flat: whether every block treats all positions nearly alike, so that the figure explains nothing.
        png: the figure.
    """

    variant: str
    lines: tuple[str, ...]
    flat: bool
    png: bytes


def attention_figures(
    training_runs: Sequence[TrainingRun],
    catalogue: Catalogue,
    config: DataConfig,
    run_dir: RunDir,
    console: Console,
) -> list[AttentionFigure]:
    """One figure per variant with CBAM, from the network of its first fold; takes seconds, on the CPU.

    Args:
        training_runs: the finished trainings.
        catalogue: the prepared data; the chips are test chips with the rarest labels.
        config: image source and decoding.
        run_dir: the run directory, which holds the weights.
        console: receives a line for each variant without weights, or where no chip can be read.

    Returns:
        Figures in the order of the trainings; variants without weights or chips are omitted.
    """
    figures = []
    chips_NHWC = None
    for training_run in training_runs:
        name = training_run.variant.name
        if training_run.fold or training_run.variant.model.cbam == "none":
            continue
        if not files.exists(weights_path(run_dir, name, 0)):
            console.say("report", f"no attention figure of {name}: its weights are missing")
            continue
        if chips_NHWC is None:
            chips_NHWC, targets_NK = load_chips(run_dir, catalogue, config, rare_rows(catalogue), CHIPS)
        if not len(chips_NHWC):
            console.say("report", f"no attention figure of {name}: no test chip can be read")
            continue
        trained = load_trained_model(run_dir, name, 0, catalogue.labels, torch.device("cpu"))
        cropped_NHWC = center_crop(torch.from_numpy(chips_NHWC), trained.variant.augment.crop)
        assert isinstance(trained.network, MultiLabelNetwork)
        bands = trained.network.bands
        maps = attention_maps(trained.network, normalize(cropped_NHWC, bands))
        captions = [",  ".join(names) or "no label" for names in catalogue.labels.decode(targets_NK)]
        shown_NHWC = cropped_NHWC.numpy() if bands is None else bands.shown(cropped_NHWC.numpy())
        figures.append(attention_figure(name, shown_NHWC, captions, maps))
    return figures


def rare_rows(catalogue: Catalogue) -> Iterator[int]:
    """Rows of the test split, in turn one with the rarest label, one with the next rarest, and so on.

    The order depends on the catalogue alone. Every row with a label occurs once.
    """
    test = catalogue.rows("test")
    remaining = np.random.default_rng(0).permutation(test)
    counts_K = catalogue.targets_NK[test].sum(axis=0, dtype=np.int64)
    while catalogue.targets_NK[remaining].any():
        for k in np.argsort(counts_K, kind="stable"):
            having = remaining[catalogue.targets_NK[remaining, k] == 1]
            if len(having):
                yield int(having[0])
                remaining = remaining[remaining != having[0]]


def attention_figure(
    name: str, chips_NHWC: NDArray[np.uint8], captions: Sequence[str], maps: Mapping[str, AttentionMaps]
) -> AttentionFigure:
    """Chips as the network receives them, each followed by one gray tile per block, tinted by its attention.

    Args:
        name: name of the variant.
        chips_NHWC: uint8 RGB, N >= 1.
        captions: N texts, one under each chip.
        maps: block -> its attention on these chips.
    """
    relative_gains = {block: found.relative_gain().numpy() for block, found in maps.items()}
    strongest = {block: float(np.abs(values_NHW).max()) for block, values_NHW in relative_gains.items()}
    lines = tuple(describe_block(block, found, relative_gains[block]) for block, found in maps.items())
    side = tile_side(chips_NHWC.shape[1])
    tiles, texts = [], []
    for n, chip_HWC in enumerate(chips_NHWC):
        tile_HWC = np.asarray(resize_for_display(chip_HWC, side / chip_HWC.shape[0]))
        tiles.append(tile_HWC)
        texts.append(captions[n])
        for block, values_NHW in relative_gains.items():
            tiles.append(tint(tile_HWC, values_NHW[n], max(strongest[block], FLAT)))
            title = f"{block_name(block)}:  " if len(relative_gains) > 1 else ""
            # The font of the PNG has narrow blanks and no U+2212.
            texts.append(title + share_range(values_NHW[n]).replace("−", "-").replace(" ", "  "))
    each = 1 + len(relative_gains)
    columns = max(COLUMNS // each, 1) * each
    flat = max(strongest.values()) < FLAT
    return AttentionFigure(name, lines, flat, image_grid(np.stack(tiles), texts, columns, lines=6))


def describe_block(block: str, found: AttentionMaps, relative_gain_NHW: NDArray[np.float32]) -> str:
    """One line on a block: its resolution, the range of its spatial map, its gate, its effect on features."""
    _, height, width = relative_gain_NHW.shape
    gate = f"{found.gate:.2f}".replace("-", "−")
    low, high = float(found.spatial_NHW.min()), float(found.spatial_NHW.max())
    return (
        f"{block_name(block)}: {height} × {width} positions, spatial map {low:.2f} to {high:.2f}, "
        f"gate {gate}, features {share_range(relative_gain_NHW)}"
    )


def block_name(module: str) -> str:
    """Short name of a block: the stage that it follows."""
    return module.removeprefix("backbone.").removesuffix(".cbam").replace("cbam", "last")


def share_range(shares: NDArray[np.float32]) -> str:
    """The smallest and the largest share with signs: ``−3.1% to +12.3%``."""
    return f"{100 * shares.min():+.1f}% to {100 * shares.max():+.1f}%".replace("-", "−")
