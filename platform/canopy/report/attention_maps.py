"""Where CBAM looks: test chips beside what its blocks make of every position, one picture per variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from canopy.config import DataConfig
from canopy.data.catalogue import Catalogue
from canopy.data.contact_sheet import load_chips, resize_for_display, tile_side
from canopy.data.transforms.augment import normalize
from canopy.data.transforms.crop import center_crop
from canopy.models.attention import AttentionMaps, attention_maps
from canopy.report.plots import contact_sheet
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.trained_model import load_trained_model, weights_path
from canopy.train.training_run import TrainingRun

CHIPS, COLUMNS = 8, 8
FLAT = 0.02
"""A block that strengthens no shown position by more than this share says nothing; its colours stay faint."""
WARM, COOL = (255, 138, 20), (40, 110, 255)
COVER = 0.7
"""How much of the chip the strongest colour covers."""


@dataclass(frozen=True)
class Look:
    """What CBAM of one variant does, as a PNG, and in words: one line per block, the first block first."""

    variant: str
    lines: tuple[str, ...]
    flat: bool
    """Whether no block acts by position: then the picture explains nothing."""
    png: bytes


def attention_looks(
    training_runs: Sequence[TrainingRun],
    catalogue: Catalogue,
    config: DataConfig,
    run: RunDir,
    console: Console,
) -> list[Look]:
    """A picture for each variant with CBAM, of its first fold's network; takes seconds, on the CPU.

    Args:
        units: the finished trainings.
        catalogue: of the run; the chips are of its test split, those with the rarest labels.
        config: how images are decoded.
        run: where the weights lie.
        console: told of a variant whose weights are not there, or when no chip can be read.

    Returns:
        In the order of the units; none where there is nothing to show.
    """
    looks = []
    chips_NHWC = None
    for training_run in training_runs:
        name = training_run.variant.name
        if training_run.fold or training_run.variant.model.cbam == "none":
            continue
        if not files.exists(weights_path(run, name, 0)):
            console.say("report", f"no attention of {name} to show: its weights are not there")
            continue
        if chips_NHWC is None:
            chips_NHWC, targets_NK = load_chips(run, catalogue, config, rare_rows(catalogue), CHIPS)
        if not len(chips_NHWC):
            console.say("report", f"no attention of {name} to show: no test chip can be read")
            continue
        trained = load_trained_model(run, name, 0, catalogue.labels, torch.device("cpu"))
        seen_NHWC = center_crop(torch.from_numpy(chips_NHWC), trained.variant.augment.crop)
        maps = attention_maps(trained.network, normalize(seen_NHWC))
        captions = [",  ".join(names) or "no label" for names in catalogue.labels.decode(targets_NK)]
        looks.append(look(name, seen_NHWC.numpy(), captions, maps))
    return looks


def rare_rows(catalogue: Catalogue) -> Iterator[int]:
    """Rows of the test split: one with the rarest label there, one with the next rarest, and so around.

    The same for the same catalogue; each row comes at most once, one without labels never.
    """
    test = catalogue.rows("test")
    left = np.random.default_rng(0).permutation(test)
    counts_K = catalogue.targets_NK[test].sum(axis=0, dtype=np.int64)
    while catalogue.targets_NK[left].any():
        for k in np.argsort(counts_K, kind="stable"):
            having = left[catalogue.targets_NK[left, k] == 1]
            if len(having):
                yield int(having[0])
                left = left[left != having[0]]


def look(
    name: str, chips_NHWC: NDArray[np.uint8], captions: Sequence[str], maps: Mapping[str, AttentionMaps]
) -> Look:
    """Chips as the network gets them, each followed by itself in grey under every block's colours.

    Args:
        name: of the variant.
        chips_NHWC: uint8 RGB, N >= 1.
        captions: N texts, under the chips.
        maps: of each block, for these chips.
    """
    emphases = {block: found.emphasis().numpy() for block, found in maps.items()}
    strongest = {block: float(np.abs(values_NHW).max()) for block, values_NHW in emphases.items()}
    lines = tuple(in_words(block, found, emphases[block]) for block, found in maps.items())
    side = tile_side(chips_NHWC.shape[1])
    tiles, texts = [], []
    for n, chip_HWC in enumerate(chips_NHWC):
        tile_HWC = np.asarray(resize_for_display(chip_HWC, side / chip_HWC.shape[0]))
        tiles.append(tile_HWC)
        texts.append(captions[n])
        for block, values_NHW in emphases.items():
            tiles.append(tinted(tile_HWC, values_NHW[n], max(strongest[block], FLAT)))
            title = f"{block_name(block)}:  " if len(emphases) > 1 else ""
            # The picture's font has thin spaces and no real minus.
            texts.append(title + span(values_NHW[n]).replace("−", "-").replace(" ", "  "))
    each = 1 + len(emphases)
    columns = max(COLUMNS // each, 1) * each
    flat = max(strongest.values()) < FLAT
    return Look(name, lines, flat, contact_sheet(np.stack(tiles), texts, columns, lines=6))


def in_words(block: str, found: AttentionMaps, emphasis_NHW: NDArray[np.float32]) -> str:
    """What a block does, for the page: how fine it looks, its gate, its map, and what comes of them."""
    _, height, width = emphasis_NHW.shape
    gate = f"{found.gate:.2f}".replace("-", "−")
    low, high = float(found.spatial_NHW.min()), float(found.spatial_NHW.max())
    return (
        f"{block_name(block)}: {height} × {width} positions, spatial map {low:.2f} to {high:.2f}, "
        f"gate {gate}, features {span(emphasis_NHW)}"
    )


def tinted(
    tile_HWC: NDArray[np.uint8], emphasis_hw: NDArray[np.float32], strongest: float
) -> NDArray[np.uint8]:
    """A tile in grey, warm where ``emphasis_hw`` is positive and cool where negative, the more the stronger.

    Args:
        tile_HWC: uint8 RGB.
        emphasis_hw: of any smaller size; spread over the tile bilinearly.
        strongest: the magnitude that gets the full colour, > 0.
    """
    given = torch.from_numpy(emphasis_hw)[None, None]
    spread = torch.nn.functional.interpolate(given, tile_HWC.shape[:2], mode="bilinear", align_corners=False)
    share_HW = np.clip(spread[0, 0].numpy() / strongest, -1, 1)
    gray_HW1 = (tile_HWC @ np.array([0.299, 0.587, 0.114]))[..., None]
    color_HW3 = np.where(share_HW[..., None] > 0, WARM, COOL)
    cover_HW1 = COVER * np.abs(share_HW)[..., None]
    mixed_HW3: NDArray[np.uint8] = np.rint(gray_HW1 * (1 - cover_HW1) + color_HW3 * cover_HW1).astype(
        np.uint8
    )
    return mixed_HW3


def block_name(module: str) -> str:
    """A block's module name in short: the stage it stands behind."""
    return module.removeprefix("backbone.").removesuffix(".cbam").replace("cbam", "last")


def span(shares: NDArray[np.float32]) -> str:
    """The least and the largest of some shares with their signs: ``−3.1% to +12.3%``."""
    return f"{100 * shares.min():+.1f}% to {100 * shares.max():+.1f}%".replace("-", "−")
