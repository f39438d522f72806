"""A data set decoded whole: into a file that all processes map, or through the object store."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from canopy.data.loading.chip_cache import HEADER_BYTES, decode_all, keep_rows, mapped, room_for
from canopy.errors import RunDirError

SIZE, ROWS = 24, 300

pytestmark = pytest.mark.usefixtures("ray_here")


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    chips_NHWC = np.random.default_rng(0).integers(0, 256, (ROWS, SIZE, SIZE, 3), np.uint8)
    for n, chip in enumerate(chips_NHWC):
        Image.fromarray(chip).save(tmp_path / f"{n}.png")
    (tmp_path / "7.png").write_bytes(b"\x89PNG and no more")
    chips_NHWC[7] = 0
    return tuple(str(tmp_path / f"{n}.png") for n in range(ROWS)), chips_NHWC


def test_chips_are_decoded_into_the_mapped_file(
    pictures: tuple[tuple[str, ...], np.ndarray], tmp_path: Path
) -> None:
    uris, expected_NHWC = pictures
    place = tmp_path / "run" / "chips.npy"
    chips_NHWC = room_for(place, ROWS, SIZE)
    chips_NHWC[7] = 255  # what was there before must not show through where an image cannot be read
    means: dict[int, float] = {}
    bad: list[int] = []
    blocks = decode_all(uris, SIZE, place=place, look=lambda c: {"mean": c.mean((1, 2, 3))}, images=False)
    for batch, found in blocks:
        assert "image" not in batch
        means |= dict(zip(batch["row"].tolist(), batch["mean"].tolist(), strict=True))
        bad += [int(row) for row, one in zip(batch["row"], found, strict=True) if one.problem]
    assert bad == [7]
    np.testing.assert_array_equal(chips_NHWC, expected_NHWC)
    np.testing.assert_array_equal(np.load(place), expected_NHWC)
    assert [means[n] for n in range(ROWS)] == pytest.approx(expected_NHWC.mean((1, 2, 3)))
    through_the_store = np.concatenate([batch["image"] for batch, _ in decode_all(uris, SIZE)])
    np.testing.assert_array_equal(through_the_store, expected_NHWC)


def test_chips_are_left_out_of_the_file_in_place(tmp_path: Path) -> None:
    place, size, rows = tmp_path / "chips.npy", 400, 12  # three chips to a piece
    room_for(place, rows, size)[:] = np.random.default_rng(0).integers(
        0, 256, (rows, size, size, 3), np.uint8
    )
    whole_NHWC, inode = np.load(place), place.stat().st_ino
    for keep in ([0, 1, 2, 4, 5, 6, 7, 8, 10], [1, 2, 8], [2]):
        kept_NHWC = keep_rows(place, np.array(keep))
        whole_NHWC = whole_NHWC[keep]
        np.testing.assert_array_equal(kept_NHWC, whole_NHWC)
        np.testing.assert_array_equal(np.load(place), whole_NHWC)
        assert place.stat().st_ino == inode
        assert place.stat().st_size == HEADER_BYTES + whole_NHWC.nbytes


def test_a_replaced_file_is_mapped_anew(tmp_path: Path) -> None:
    np.save(tmp_path / "chips.npy", np.zeros((2, 4, 4, 3), np.uint8))
    before = mapped(str(tmp_path / "chips.npy"))
    assert mapped(str(tmp_path / "chips.npy")) is before
    np.save(tmp_path / "new.npy", np.ones((2, 4, 4, 3), np.uint8))
    (tmp_path / "new.npy").replace(tmp_path / "chips.npy")
    assert mapped(str(tmp_path / "chips.npy")).all()
    assert not before.any(), "who mapped the old file keeps it"


def test_a_disk_without_room_is_one_clear_error_at_once(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path)
    rows = 2 * free.f_bavail * free.f_frsize // (1024 * 1024 * 3)
    with pytest.raises(RunDirError, match=r"must have room for .* GB .*" + os.strerror(errno.ENOSPC)):
        room_for(tmp_path / "chips.npy", rows, 1024)
    assert not (tmp_path / "chips.npy").exists(), "the attempt leaves nothing"
