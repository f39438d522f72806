"""Contact sheets: what stands on them is what training makes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from canopy.config import (
    AUGMENT_PRESETS,
    AugmentConfig,
    DataConfig,
    Experiment,
    SensorConfig,
    VariantConfig,
    derive,
)
from canopy.data.catalogue import Catalogue
from canopy.data.sheet import (
    CHIPS,
    DRAWS,
    caption,
    draw_sheet,
    example_rows,
    tile_side,
    training_draws,
    words,
    write_sheets,
)
from canopy.labels import LabelSet
from canopy.rundir import RunDir

SIZE, ROWS = 32, 40
NAMES = ("clear", "conventional_mine", "haze", "road", "water")


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    rng = np.random.default_rng(0)
    for n in range(ROWS):
        chip = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(chip).save(tmp_path / f"{n}.png")
    return Catalogue(
        ids=[f"n{n}" for n in range(ROWS)],
        uris=[str(tmp_path / f"{n}.png") for n in range(ROWS)],
        targets_NK=(rng.random((ROWS, 5)) < 0.3).astype(np.uint8),
        split=np.array(["train"] * ROWS),
        fold=np.zeros(ROWS, np.int8),
        group=np.array([""] * ROWS),
        labels=LabelSet(NAMES),
    )


def tile(sheet: NDArray[np.uint8], column: int, top: int) -> NDArray[np.uint8]:
    """One tile, shrunk to the chip's own pixels."""
    side = tile_side(SIZE)
    left = 16 + column * (side + 8) + (8 if column else 0)
    return sheet[top : top + side, left : left + side][2::4, 2::4]


def test_every_tile_is_what_training_makes_of_the_chip(catalogue: Catalogue) -> None:
    chips_NHWC = np.stack([np.asarray(Image.open(uri)) for uri in catalogue.uris[:CHIPS]])
    targets_NK = catalogue.targets_NK[:CHIPS]
    variant = VariantConfig(name="v", augment=AUGMENT_PRESETS["enhanced"], seed=4)
    sheet = np.asarray(Image.open(io.BytesIO(draw_sheet(chips_NHWC, targets_NK, NAMES, variant))))
    drawn = training_draws(chips_NHWC, targets_NK, variant, DRAWS)
    top = 16 + 14
    for n in range(CHIPS):
        np.testing.assert_array_equal(tile(sheet, 0, top), chips_NHWC[n])
        for step, (images_NHWC, soft_NK) in enumerate(drawn):
            np.testing.assert_array_equal(tile(sheet, 1 + step, top), images_NHWC[n])
            assert (soft_NK == targets_NK).all()
        lines = caption(targets_NK[n].astype(np.float32), NAMES)
        top += tile_side(SIZE) + 8 + 14 * len(lines) + 8


def test_captions_group_labels_by_their_share() -> None:
    soft_K = np.array([0.25, 1, 0, 0.75, 0.75], np.float32)
    lines = [line.replace("  ", " ") for line in caption(soft_K, NAMES)]
    assert lines == ["conventional_mine", "75 % road, water", "25 % clear"]
    assert caption(np.zeros(5, np.float32), NAMES) == ["no  label"]
    many = caption(np.ones(60, np.float32), [f"label_number_{k}" for k in range(60)])
    assert len(many) == 6
    assert many[-1].endswith("…")


def test_examples_show_as_many_labels_as_they_can(catalogue: Catalogue) -> None:
    rows = [row for row, _ in zip(example_rows(catalogue), range(CHIPS), strict=False)]
    assert len(set(rows)) == CHIPS
    assert catalogue.targets_NK[rows].any(0).all()
    assert sorted(example_rows(catalogue)) == list(range(ROWS))


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "streaming"])
def test_one_sheet_for_each_augmentation(catalogue: Catalogue, tmp_path: Path, cached: bool) -> None:
    run = RunDir(str(tmp_path / "run"))
    chips_NHWC = np.stack([np.asarray(Image.open(uri)) for uri in catalogue.uris])
    if cached:
        (tmp_path / "run" / "prepare").mkdir(parents=True)
        np.save(tmp_path / "run" / "prepare" / "chips.npy", chips_NHWC)
        catalogue = replace(catalogue, uris=[""] * ROWS)
    else:
        first = next(iter(example_rows(catalogue)))
        Path(catalogue.uris[first]).write_bytes(b"gone bad")  # another takes its place
    mixed = AugmentConfig(mixup_alpha=0.4, cutmix_alpha=1.0, hue=0.1)
    plain = VariantConfig(name="plain")
    variants = (
        plain,
        VariantConfig(name="mixed", augment=mixed),
        derive(plain, name="plain-too", augment=derive(plain.augment, place="device"), seed=1),
    )
    config = Experiment(data=DataConfig(image_size=SIZE), variants=variants)
    sheets = write_sheets(config, run, catalogue)
    assert [sheet.variants for sheet in sheets] == [("plain", "plain-too"), ("mixed",)]
    assert [sheet.words for sheet in sheets] == [
        "flips and quarter turns",
        "flips and quarter turns, hue ±0.1, Mixup α 0.4, CutMix α 1",
    ]
    pictures = [np.asarray(Image.open(sheet.path)) for sheet in sheets]
    assert pictures[1].shape[0] > pictures[0].shape[0], "mixed draws have captions"
    made = [Path(sheet.path).stat().st_mtime_ns for sheet in sheets]
    assert write_sheets(config, run, catalogue) == sheets
    assert [Path(sheet.path).stat().st_mtime_ns for sheet in sheets] == made, "made once"
    brighter = derive(config, data=derive(config.data, sensor=SensorConfig(white=3000)))
    assert {s.path for s in write_sheets(brighter, run, catalogue)}.isdisjoint(s.path for s in sheets)


def test_words() -> None:
    assert words(AugmentConfig(flips=False)) == "no augmentation"
    assert words(AUGMENT_PRESETS["enhanced"]) == (
        "flips and quarter turns, rotation ±90°, brightness ±0.3, contrast ±0.3, saturation ±0.3, hue ±0.15, "
        "greyscale 10%, blur 20%"
    )
