"""Contact sheets: their images are those of a training."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from numpy.typing import NDArray
from PIL import Image

from canopy.config import (
    AUGMENT_PRESETS,
    AugmentConfig,
    DataConfig,
    Experiment,
    OptimConfig,
    SensorConfig,
    VariantConfig,
    derive,
)
from canopy.data.augmentation_sheet import (
    CHIPS,
    DRAWS,
    caption,
    describe_augmentation,
    draw_contact_sheet,
    example_rows,
    tile_side,
    write_contact_sheets,
)
from canopy.data.catalogue import Catalogue
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.uri_list import UriList
from canopy.data.transforms.mixup import uses_mix
from canopy.data.transforms.normalize import IMAGENET_MEAN, IMAGENET_STD
from canopy.labels import LabelSet
from canopy.storage.run_dir import RunDir
from canopy.train.training_phase import DistributedContext, TrainingPhase

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


def tile(sheet: NDArray[np.uint8], column: int, top: int, side: int = SIZE) -> NDArray[np.uint8]:
    """One image of the sheet, in its own pixels; a cropped image is centered."""
    inset = 2 * (SIZE - side)
    left = 16 + column * (tile_side(SIZE) + 8) + (8 if column else 0) + inset
    top += inset
    return sheet[top : top + 4 * side, left : left + 4 * side][2::4, 2::4]


AUGMENTS = {
    "computed": AUGMENT_PRESETS["enhanced"],
    "mixed": AugmentConfig(mixup_alpha=0.4, cutmix_alpha=1.0, hue=0.1),
    "mixed on the device": AugmentConfig(cutmix_alpha=1.0, cutmix_labels="union", place="device"),
    "cropped": AugmentConfig(crop=20, mixup_alpha=1.0),
}


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("name", AUGMENTS)
def test_every_image_equals_that_of_a_training_on_these_chips(catalogue: Catalogue, name: str) -> None:
    augment, optim = AUGMENTS[name], OptimConfig(batch_size=CHIPS, epochs=DRAWS)
    variant = VariantConfig(name="v", augment=augment, optim=optim, seed=4)
    chips_NHWC = np.stack([np.asarray(Image.open(uri)) for uri in catalogue.uris[:CHIPS]])
    targets_NK, rows = catalogue.targets_NK[:CHIPS], np.arange(CHIPS)
    sheet = np.asarray(Image.open(io.BytesIO(draw_contact_sheet(chips_NHWC, targets_NK, NAMES, variant))))
    dist_context = DistributedContext(0, 1, torch.device("cpu"))
    phase = TrainingPhase(
        variant, catalogue, ChipSource(SIZE, UriList(()), ray.put(chips_NHWC)), dist_context, rows, rows
    )
    fed: list[list[tuple[NDArray[np.float32], NDArray[np.float32]]]] = [[] for _ in rows]
    for order_N, (images_NCHW, soft_NK) in zip(
        phase.batch_sampler.batches(0, DRAWS), phase.batches(0), strict=True
    ):
        levels_NHWC = images_NCHW.permute(0, 2, 3, 1).numpy() * IMAGENET_STD + IMAGENET_MEAN
        for n, levels_HWC, soft_K in zip(order_N, 255 * levels_NHWC, soft_NK.numpy(), strict=True):
            fed[n].append((levels_HWC, soft_K))
    top = 16 + 14
    for n, steps in enumerate(fed):
        np.testing.assert_array_equal(tile(sheet, 0, top), chips_NHWC[n])
        for step, (levels_HWC, _) in enumerate(steps):
            shown = tile(sheet, 1 + step, top, augment.crop or SIZE)
            assert np.abs(shown - levels_HWC).max() < 0.51, "rounded to the next level"
        shares = [targets_NK[n].astype(np.float32), *(soft_K for _, soft_K in steps if uses_mix(augment))]
        top += tile_side(SIZE) + 8 + 14 * max(len(caption(soft_K, NAMES)) for soft_K in shares) + 8
    assert top == sheet.shape[0] - 8


def test_captions_group_labels_by_their_share() -> None:
    soft_K = np.array([0.25, 1, 0, 0.75, 0.75], np.float32)
    lines = [line.replace("  ", " ") for line in caption(soft_K, NAMES)]
    assert lines == ["conventional_mine", "75 % road, water", "25 % clear"]
    assert caption(np.zeros(5, np.float32), NAMES) == ["no  label"]
    many = caption(np.ones(60, np.float32), [f"label_number_{k}" for k in range(60)])
    assert len(many) == 6
    assert many[-1].endswith("…")


def test_example_chips_show_all_labels(catalogue: Catalogue) -> None:
    rows = [row for row, _ in zip(example_rows(catalogue), range(CHIPS), strict=False)]
    assert len(set(rows)) == CHIPS
    assert catalogue.targets_NK[rows].any(0).all()
    assert sorted(example_rows(catalogue)) == list(range(ROWS))


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "streaming"])
def test_one_sheet_for_each_augmentation(catalogue: Catalogue, tmp_path: Path, cached: bool) -> None:
    run_dir = RunDir(str(tmp_path / "run"))
    chips_NHWC = np.stack([np.asarray(Image.open(uri)) for uri in catalogue.uris])
    if cached:
        (tmp_path / "run" / "prepare").mkdir(parents=True)
        np.save(tmp_path / "run" / "prepare" / "chips.npy", chips_NHWC)
        catalogue = replace(catalogue, uris=[""] * ROWS)
    else:
        first = next(iter(example_rows(catalogue)))
        Path(catalogue.uris[first]).write_bytes(b"gone bad")  # another chip replaces it
    mixed = AugmentConfig(mixup_alpha=0.4, cutmix_alpha=1.0, hue=0.1)
    plain = VariantConfig(name="plain")
    variants = (
        plain,
        VariantConfig(name="mixed", augment=mixed),
        derive(plain, name="plain-too", augment=derive(plain.augment, place="device"), seed=1),
    )
    config = Experiment(data=DataConfig(image_size=SIZE), variants=variants)
    sheets = write_contact_sheets(config, run_dir, catalogue)
    assert [sheet.variants for sheet in sheets] == [("plain", "plain-too"), ("mixed",)]
    assert [sheet.description for sheet in sheets] == [
        "flips and quarter turns",
        "flips and quarter turns, hue ±0.1, Mixup α 0.4, CutMix α 1",
    ]
    pictures = [np.asarray(Image.open(sheet.path)) for sheet in sheets]
    assert pictures[1].shape[0] > pictures[0].shape[0], "mixed draws have captions"
    made = [Path(sheet.path).stat().st_mtime_ns for sheet in sheets]
    assert write_contact_sheets(config, run_dir, catalogue) == sheets
    assert [Path(sheet.path).stat().st_mtime_ns for sheet in sheets] == made, "made once"
    brighter = derive(config, data=derive(config.data, sensor=SensorConfig(white=3000)))
    assert {s.path for s in write_contact_sheets(brighter, run_dir, catalogue)}.isdisjoint(
        s.path for s in sheets
    )


def test_augmentations_are_described_in_words() -> None:
    assert describe_augmentation(AugmentConfig(flips=False)) == "no augmentation"
    assert describe_augmentation(AUGMENT_PRESETS["enhanced"]) == (
        "flips and quarter turns, rotation ±90°, brightness ±0.3, contrast ±0.3, saturation ±0.3, hue ±0.15, "
        "grayscale 10%, blur 20%"
    )
