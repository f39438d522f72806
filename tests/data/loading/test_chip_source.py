"""Chips by row: images decoded on demand, and their replacement where one is unreadable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.uri_list import UriList
from canopy.errors import DataError

SIZE, ROWS = 16, 6


@pytest.fixture
def images(tmp_path: Path) -> tuple[list[str], np.ndarray]:
    chips_NHWC = np.random.default_rng(0).integers(0, 256, (ROWS, SIZE, SIZE, 3), np.uint8)
    uris = [str(tmp_path / f"{n}.png") for n in range(ROWS)]
    for uri, chip in zip(uris, chips_NHWC, strict=True):
        Image.fromarray(chip).save(uri)
    return uris, chips_NHWC


def test_rows_are_decoded_in_the_requested_order(images: tuple[list[str], np.ndarray]) -> None:
    uris, chips_NHWC = images
    rows = np.array([4, 0, 4])
    decoded_NHWC, problems = ChipSource(SIZE, UriList(uris), None).decode_rows(rows)
    np.testing.assert_array_equal(decoded_NHWC, chips_NHWC[rows])
    assert problems.tolist() == ["", "", ""]


def test_unreadable_images_are_black_and_named(images: tuple[list[str], np.ndarray]) -> None:
    uris, chips_NHWC = images
    Path(uris[1]).unlink()
    Path(uris[3]).write_bytes(b"")
    decoded_NHWC, problems = ChipSource(SIZE, UriList(uris), None).decode_rows(np.arange(ROWS))
    assert problems.tolist() == [
        "",
        f"{uris[1]}: there is no such file",
        "",
        f"{uris[3]}: the file is empty",
        "",
        "",
    ]
    chips_NHWC[[1, 3]] = 0
    np.testing.assert_array_equal(decoded_NHWC, chips_NHWC)


def test_the_next_readable_image_of_the_batch_is_found(images: tuple[list[str], np.ndarray]) -> None:
    uris, chips_NHWC = images
    source = ChipSource(SIZE, UriList(uris), None)
    for row in (0, 4, 5):
        Path(uris[row]).unlink()
    batch = np.array([2, 4, 5, 3])
    row, chip_HWC = source.decode_next_readable(batch, 1)
    assert row == 3
    np.testing.assert_array_equal(chip_HWC, chips_NHWC[3])
    assert source.decode_next_readable(batch, 3)[0] == 2, "the search wraps around"
    with pytest.raises(DataError, match=r"must hold a readable image. Got: .*\.png: there is no such file"):
        source.decode_next_readable(np.array([0, 4, 5]), 0)


def test_resident_chips_are_a_view_of_the_file(tmp_path: Path) -> None:
    chips_NHWC = np.random.default_rng(0).integers(0, 256, (ROWS, SIZE, SIZE, 3), np.uint8)
    np.save(tmp_path / "chips.npy", chips_NHWC)
    source = ChipSource(SIZE, UriList(()), str(tmp_path / "chips.npy"))
    resident = source.array()
    assert resident is not None
    np.testing.assert_array_equal(resident, chips_NHWC)
    assert not resident.flags.writeable
    assert source.array() is resident
    assert ChipSource(SIZE, UriList(()), None).array() is None
