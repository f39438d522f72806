"""Batches that are filled chunk by chunk equal batches that are made as a whole."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from canopy.config import AUGMENT_PRESETS, AugmentConfig
from canopy.data.loading.augment_chunks import CHUNK_BYTES, chunk_slices, read_and_augment
from canopy.data.transforms.augment import AugmentParams, apply_augmentation, draw_params
from canopy.train.training_phase import to_device

SIZE, COUNT = 200, 23
"""Eight chips in a chunk, and a shorter last chunk."""


@pytest.fixture(scope="module")
def chips() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)


def params_of(config: AugmentConfig) -> AugmentParams:
    return draw_params(config, COUNT, np.random.default_rng(1))


@pytest.mark.parametrize(("count", "size"), [(1, 8), (23, 200), (7, 1024), (0, 32)])
def test_chunks_are_small_and_cover_everything(count: int, size: int) -> None:
    parts = chunk_slices(count, size * size * 3)
    assert [n for part in parts for n in range(count)[part]] == list(range(count))
    for part in parts:
        rows = part.stop - part.start
        assert rows == 1 or rows * size * size * 3 <= CHUNK_BYTES


@pytest.mark.parametrize(
    "config",
    [*AUGMENT_PRESETS.values(), AugmentConfig(crop=120), AugmentConfig(crop=120, flips=False, hue=0.1)],
    ids=[*AUGMENT_PRESETS, "crop", "crop, hue"],
)
def test_augmenting_in_chunks_equals_augmenting_at_once(
    chips: NDArray[np.uint8], config: AugmentConfig
) -> None:
    side = config.crop or SIZE
    out = np.zeros((COUNT, side, side, 3), np.uint8)
    seen: list[slice] = []

    def read(chunk: slice, target: NDArray[np.uint8]) -> None:
        seen.append(chunk)
        target[:] = chips[chunk]

    read_and_augment(out, SIZE, params_of(config), read)
    assert len(seen) == 3
    whole = apply_augmentation(torch.from_numpy(chips), params_of(config)).numpy()
    np.testing.assert_array_equal(out, whole)


def test_chips_without_augmentation_are_read_into_the_batch(chips: NDArray[np.uint8]) -> None:
    out = np.zeros_like(chips)

    def read(chunk: slice, target: NDArray[np.uint8]) -> None:
        assert np.shares_memory(target, out)
        target[:] = chips[chunk]

    read_and_augment(out, SIZE, None, read)
    np.testing.assert_array_equal(out, chips)


def test_errors_of_the_reader_are_raised() -> None:
    def read(chunk: slice, target: NDArray[np.uint8]) -> None:
        raise FileNotFoundError(f"{chunk} {target.shape}")

    with pytest.raises(FileNotFoundError, match=r"slice\(0, 8"):
        read_and_augment(np.zeros((COUNT, SIZE, SIZE, 3), np.uint8), SIZE, params_of(AugmentConfig()), read)


def test_shared_memory_is_not_copied_on_a_cpu(chips: NDArray[np.uint8]) -> None:
    locked = chips[:4].view()
    locked.flags.writeable = False  # as in a read-only mapping
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = to_device(locked, torch.device("cpu"))
    assert tensor.data_ptr() == locked.ctypes.data
