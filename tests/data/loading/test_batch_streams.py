"""Training and scoring batches on a real Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.bands import layout

from canopy.config import AUGMENT_PRESETS, AugmentConfig, BandConfig, SensorConfig, derive
from canopy.data.loading.batch_sampler import BatchSampler, rank_slice
from canopy.data.loading.batch_streams import scoring_batches, training_batches
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.decode_blocks import decode_blocks
from canopy.data.loading.uri_list import UriList
from canopy.data.transforms.augment import apply_augmentation, draw_params

pytestmark = pytest.mark.usefixtures("ray_here")

ROWS, SIZE = 150, 16


@pytest.fixture(scope="module")
def chips_NHWC() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (ROWS, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(chips_NHWC: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    root = tmp_path_factory.mktemp("images")
    for n, chip in enumerate(chips_NHWC):
        Image.fromarray(chip).save(root / f"{n}.png")
    return tuple(str(root / f"{n}.png") for n in range(ROWS))


@pytest.fixture(params=["mapped", "object store"])
def resident(request: pytest.FixtureRequest, chips_NHWC: np.ndarray, tmp_path: Path) -> ChipSource:
    import ray

    if request.param == "mapped":
        np.save(tmp_path / "chips.npy", chips_NHWC)
        return ChipSource(SIZE, UriList(()), str(tmp_path / "chips.npy"))
    return ChipSource(SIZE, UriList(()), ray.put(chips_NHWC))


def epochs(
    chips: ChipSource, augment: AugmentConfig, rank: int, world_size: int, first: int = 0
) -> list[dict]:  # type: ignore[type-arg]
    sampler = BatchSampler(np.arange(100), batch_size=12, seed=5)
    stream = training_batches(
        chips,
        sampler,
        augment,
        rank=rank,
        world_size=world_size,
        first_step=first,
        stop_step=2 * sampler.steps_per_epoch,
    )
    return [{k: v.copy() for k, v in batch.items()} for batch in stream]


def test_every_row_is_scored_once_for_any_number_of_workers(
    resident: ChipSource, chips_NHWC: np.ndarray
) -> None:
    rows = np.random.default_rng(1).permutation(ROWS)[:131]
    for world_size in (1, 3):
        seen, images = [], []
        for rank in range(world_size):
            for batch in scoring_batches(resident, rows[rank_slice(len(rows), rank, world_size)], 25):
                seen.append(batch["row"])
                images.append(batch["image"])
        np.testing.assert_array_equal(np.concatenate(seen), rows)
        np.testing.assert_array_equal(np.concatenate(images), chips_NHWC[rows])


def test_ranks_take_equal_steps_and_slices_of_one_global_batch(resident: ChipSource) -> None:
    plain = AugmentConfig(flips=True, brightness=0.2)
    alone = epochs(resident, plain, 0, 1)
    ranks = [epochs(resident, plain, rank, 3) for rank in range(3)]
    assert [len(r) for r in ranks] == [len(alone)] * 3 == [16] * 3
    for step, batch in enumerate(alone):
        for key in ("row", "image"):
            np.testing.assert_array_equal(np.concatenate([r[step][key] for r in ranks]), batch[key])


def test_one_seed_gives_the_same_batches_from_any_step(resident: ChipSource) -> None:
    augment = AugmentConfig(flips=True, crop_padding=2)
    whole, again, late = (epochs(resident, augment, 0, 2, first) for first in (0, 0, 11))
    for a, b in zip(whole, again, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
    for a, b in zip(whole[11:], late, strict=True):
        np.testing.assert_array_equal(a["row"], b["row"])
        np.testing.assert_array_equal(a["image"], b["image"])
    first_epoch, second_epoch = whole[:8], whole[8:]
    assert not np.array_equal(first_epoch[0]["row"], second_epoch[0]["row"])


def test_a_slow_first_block_is_waited_for(folder: tuple[str, ...], tmp_path: Path) -> None:
    """Later blocks finish long before the first one, whose images are large; the order stays."""
    sampler, slow = BatchSampler(np.arange(100), batch_size=12, seed=5), str(tmp_path / "slow.jpg")
    Image.new("RGB", (2000, 2000), (90, 80, 70)).save(slow)
    expected = sampler.batches(0, sampler.steps_per_epoch)
    chips = ChipSource(
        SIZE, UriList(slow if row in expected[0] else uri for row, uri in enumerate(folder)), None
    )

    def run() -> list[dict[str, np.ndarray]]:
        stream = training_batches(
            chips, sampler, AugmentConfig(), rank=0, world_size=1, first_step=0, stop_step=len(expected)
        )
        return [{k: v.copy() for k, v in batch.items()} for batch in stream]

    for rows_B, a, b in zip(expected, run(), run(), strict=True):
        np.testing.assert_array_equal(a["row"], rows_B)
        np.testing.assert_array_equal(b["row"], rows_B)
        np.testing.assert_array_equal(a["image"], b["image"])


def test_augmenting_on_the_device_gives_equal_batches(resident: ChipSource) -> None:
    jitter = AugmentConfig(flips=True, brightness=0.3, contrast=0.3, rotate_degrees=30)
    in_stream = epochs(resident, jitter, 1, 2)
    left_alone = epochs(resident, derive(jitter, place="device"), 1, 2)
    sampler = BatchSampler(np.arange(100), batch_size=12, seed=5)
    share = rank_slice(12, 1, 2)
    for step, (done, raw) in enumerate(zip(in_stream, left_alone, strict=True)):
        params = draw_params(jitter, 12, sampler.step_rng(step))[share]
        on_device = apply_augmentation(torch.from_numpy(raw["image"]), params).numpy()
        np.testing.assert_array_equal(on_device, done["image"])
        assert not np.array_equal(raw["image"], done["image"])


def test_pixels_travel_only_if_augmentation_changes_their_values(resident: ChipSource) -> None:
    sampler = BatchSampler(np.arange(100), batch_size=12, seed=5)
    for augment, task in (
        (AugmentConfig(flips=True, crop_padding=2), "_TrainRowsTask"),
        (AugmentConfig(brightness=0.2), "_TrainTask"),
        (AugmentConfig(brightness=0.2, place="device"), "_TrainRowsTask"),
    ):
        stream = training_batches(resident, sampler, augment, rank=0, world_size=1, first_step=0, stop_step=3)
        assert [batch["image"].shape for batch in stream] == [(12, SIZE, SIZE, 3)] * 3
        assert task in stream.stats()


def test_decoding_on_demand_equals_the_shared_chips(folder: tuple[str, ...], resident: ChipSource) -> None:
    augment = AugmentConfig(flips=True)
    for a, b in zip(
        epochs(ChipSource(SIZE, UriList(folder), None), augment, 0, 1),
        epochs(resident, augment, 0, 1),
        strict=True,
    ):
        np.testing.assert_array_equal(a["image"], b["image"])


def test_augmentation_does_not_depend_on_place_and_ranks(resident: ChipSource) -> None:
    """One seed and all steps of the augmentation, in the stream or on the device."""
    recipe = derive(AUGMENT_PRESETS["enhanced"], crop_padding=2)
    alone = epochs(resident, recipe, 0, 1)
    sampler = BatchSampler(np.arange(100), batch_size=12, seed=5)
    raw = epochs(resident, derive(recipe, place="device"), 2, 3)
    for step, (whole, mine) in enumerate(zip(alone, raw, strict=True)):
        params = draw_params(recipe, 12, sampler.step_rng(step))[rank_slice(12, 2, 3)]
        on_device = apply_augmentation(torch.from_numpy(mine["image"]), params).numpy()
        np.testing.assert_array_equal(on_device, whole["image"][8:])


def test_bands_are_augmented_alike_in_the_stream_and_on_the_device(tmp_path: Path) -> None:
    """All steps, with declared colors, dropout and noise, in 16 bits."""
    levels = np.random.default_rng(2).integers(0, 40_000, (ROWS, SIZE, SIZE, 4)).astype(np.uint16)
    np.save(tmp_path / "chips.npy", levels)
    bands = layout(*(BandConfig(name=name) for name in ("nir", "red", "green", "blue")))
    chips = ChipSource(SIZE, UriList(()), str(tmp_path / "chips.npy"), layout=bands)
    assert chips.colors == (1, 2, 3)
    recipe = derive(AUGMENT_PRESETS["enhanced"], crop_padding=2, noise=0.1, band_dropout=0.1)
    whole = epochs(chips, recipe, 0, 1)
    raw = epochs(chips, derive(recipe, place="device"), 2, 3)
    sampler = BatchSampler(np.arange(100), batch_size=12, seed=5)
    for step, (done, mine) in enumerate(zip(whole, raw, strict=True)):
        params = draw_params(recipe, 12, sampler.step_rng(step), 4, (1, 2, 3))[rank_slice(12, 2, 3)]
        on_device = apply_augmentation(torch.from_numpy(mine["image"]), params).numpy()
        np.testing.assert_array_equal(on_device, done["image"][8:])


def test_the_sensor_is_the_same_in_every_stream(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    Image.fromarray(values).save(tmp_path / "a.png")
    sensor, uris = SensorConfig(white=4095), (str(tmp_path / "a.png"),)
    ((decoded, _),) = decode_blocks(uris, SIZE, sensor)
    (scored,) = scoring_batches(ChipSource(SIZE, UriList(uris), None, sensor), np.zeros(1, np.int64), 4)
    for images_NHWC in (decoded["image"], scored["image"]):
        assert (images_NHWC[0] == (values >> 4)[..., None]).all()
