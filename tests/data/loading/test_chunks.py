"""Batches made piece by piece equal those made whole."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from canopy.config import AUGMENT_PRESETS, AugmentConfig
from canopy.data.loading.chunks import CHUNK_BYTES, augment_into, chunk_slices
from canopy.data.transforms.augment import AugmentParams, apply_augmentation, draw_params
from canopy.train.task import to_device

SIZE, COUNT = 200, 23
"""Eight chips to a piece, and a last piece that is shorter."""


@pytest.fixture(scope="module")
def chips() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)


def params_of(config: AugmentConfig) -> AugmentParams:
    return draw_params(config, COUNT, np.random.default_rng(1))


@pytest.mark.parametrize(("count", "size"), [(1, 8), (23, 200), (7, 1024), (0, 32)])
def test_pieces_are_small_and_leave_nothing_out(count: int, size: int) -> None:
    parts = chunk_slices(count, size)
    assert [n for part in parts for n in range(count)[part]] == list(range(count))
    for part in parts:
        rows = part.stop - part.start
        assert rows == 1 or rows * size * size * 3 <= CHUNK_BYTES


@pytest.mark.parametrize(
    "config",
    [*AUGMENT_PRESETS.values(), AugmentConfig(crop=120), AugmentConfig(crop=120, flips=False, hue=0.1)],
    ids=[*AUGMENT_PRESETS, "crop", "crop, hue"],
)
def test_piece_by_piece_is_as_at_once(chips: NDArray[np.uint8], config: AugmentConfig) -> None:
    side = config.crop or SIZE
    out = np.zeros((COUNT, side, side, 3), np.uint8)
    seen: list[slice] = []

    def read(piece: slice, place: NDArray[np.uint8]) -> None:
        seen.append(piece)
        place[:] = chips[piece]

    augment_into(out, SIZE, params_of(config), read)
    assert len(seen) == 3
    whole = apply_augmentation(torch.from_numpy(chips), params_of(config)).numpy()
    np.testing.assert_array_equal(out, whole)


def test_chips_that_are_left_as_they_are_go_straight_to_their_places(chips: NDArray[np.uint8]) -> None:
    out = np.zeros_like(chips)

    def read(piece: slice, place: NDArray[np.uint8]) -> None:
        assert np.shares_memory(place, out)
        place[:] = chips[piece]

    augment_into(out, SIZE, None, read)
    np.testing.assert_array_equal(out, chips)


def test_what_reading_raises_comes_out() -> None:
    def read(piece: slice, place: NDArray[np.uint8]) -> None:
        raise FileNotFoundError(f"{piece} {place.shape}")

    with pytest.raises(FileNotFoundError, match=r"slice\(0, 8"):
        augment_into(np.zeros((COUNT, SIZE, SIZE, 3), np.uint8), SIZE, params_of(AugmentConfig()), read)


def test_shared_memory_is_looked_at_and_not_copied_on_a_processor(chips: NDArray[np.uint8]) -> None:
    locked = chips[:4].view()
    locked.flags.writeable = False  # as memory that all processes map to read
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = to_device(locked, torch.device("cpu"))
    assert tensor.data_ptr() == locked.ctypes.data
