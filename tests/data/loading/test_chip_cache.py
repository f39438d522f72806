"""The file of decoded chips: its life from creation to sharing."""

from __future__ import annotations

import errno
import os
import pickle
import re
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import numpy as np
import pytest
import ray

from canopy.bands import BandLayout
from canopy.config import BandConfig
from canopy.data.loading.chip_cache import HEADER_BYTES, ChipCache
from canopy.errors import RunDirError, StorageError
from canopy.storage.run_dir import RunDir


def noise(rows: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, size, size, 3), np.uint8)


@pytest.fixture
def cache(tmp_path: Path) -> ChipCache:
    return ChipCache.of_run(RunDir(str(tmp_path / "run")))


def test_written_rows_are_published_as_an_npy_file(cache: ChipCache) -> None:
    chips_NHWC = noise(7, 24)
    growing_NHWC = cache.create(7, 24)
    for first, last in ((4, 7), (0, 4)):
        cache.write_rows(first, chips_NHWC[first:last])
    np.testing.assert_array_equal(growing_NHWC, chips_NHWC)
    assert not cache.exists()
    cache.publish()
    assert cache.path.endswith("/prepare/chips.npy")
    assert not Path(cache.building_path).exists()
    np.testing.assert_array_equal(np.load(cache.path), chips_NHWC)
    np.testing.assert_array_equal(cache.open(), chips_NHWC)


def test_chips_in_memory_are_published_to_the_same_bytes(cache: ChipCache, tmp_path: Path) -> None:
    chips_NHWC = noise(5, 16)
    cache.publish(chips_NHWC)
    other = ChipCache(str(tmp_path / "other.npy"))
    other.create(5, 16)[:] = chips_NHWC
    other.publish()
    assert Path(cache.path).read_bytes() == Path(other.path).read_bytes()
    cache.delete()
    assert not cache.exists()
    cache.delete()  # nothing is left to delete


def test_a_discarded_file_leaves_nothing(cache: ChipCache) -> None:
    cache.create(3, 8)
    cache.discard()
    assert list(Path(cache.path).parent.iterdir()) == []
    cache.discard()


def test_rows_are_removed_in_place(cache: ChipCache) -> None:
    size, rows = 400, 12  # two chips in a chunk
    cache.create(rows, size)[:] = noise(rows, size)
    growing = Path(cache.building_path)
    expected_NHWC, inode = np.load(growing), growing.stat().st_ino
    for keep in ([0, 1, 2, 4, 5, 6, 7, 8, 10], [1, 2, 8], [2]):
        kept_NHWC = cache.keep_rows(np.array(keep))
        expected_NHWC = expected_NHWC[keep]
        np.testing.assert_array_equal(kept_NHWC, expected_NHWC)
        np.testing.assert_array_equal(np.load(growing), expected_NHWC)
        assert growing.stat().st_ino == inode
        assert growing.stat().st_size == HEADER_BYTES + expected_NHWC.nbytes


def test_a_replaced_file_is_mapped_again(cache: ChipCache) -> None:
    cache.publish(np.zeros((2, 4, 4, 3), np.uint8))
    before = cache.open()
    assert cache.open() is before
    cache.create(2, 4)[:] = 1
    cache.publish()
    assert cache.open().all()
    assert not before.any(), "an older mapping keeps the older file"


def test_a_disk_without_room_is_one_clear_error_at_once(cache: ChipCache, tmp_path: Path) -> None:
    free = os.statvfs(tmp_path)
    rows = 2 * free.f_bavail * free.f_frsize // (1024 * 1024 * 3)
    with pytest.raises(StorageError, match=r"must have room for .* GB .*" + os.strerror(errno.ENOSPC)):
        cache.create(rows, 1024)
    assert not Path(cache.building_path).exists(), "the attempt leaves nothing"


@pytest.mark.parametrize("damage", ["cut", "empty", "garbled", "floats", "pickled"])
def test_a_damaged_file_is_one_clear_error(cache: ChipCache, damage: str) -> None:
    cache.publish(noise(4, 8))
    path = Path(cache.path)
    data = path.read_bytes()
    content = {"cut": data[:200], "empty": b"", "garbled": b"\0" * 500, "pickled": pickle.dumps([1])}
    if damage == "floats":
        np.save(path, np.zeros((4, 8, 8, 3)))
    else:
        path.write_bytes(content[damage])
    with pytest.raises(
        RunDirError, match=rf"chips.npy must .* Delete {re.escape(str(path.parent))} and run again"
    ):
        cache.open()


@pytest.mark.usefixtures("ray_here")
def test_chips_are_shared_as_a_mapped_file_on_one_machine(cache: ChipCache) -> None:
    cache.publish(noise(4, 8))
    assert cache.is_mappable
    assert cache.share(4, 8) == cache.path
    with pytest.raises(RunDirError, match=r"must hold 5 chips of 8 px. Got: shape \(4, 8, 8, 3\)"):
        cache.share(5, 8)


@pytest.mark.usefixtures("ray_here", "s3_here")
def test_chips_of_a_bucket_are_shared_through_the_object_store() -> None:
    boto3.client("s3").create_bucket(Bucket="chip-cache")
    cache = ChipCache.of_run(RunDir("s3://chip-cache/run"))
    assert not cache.is_mappable
    cache.publish(noise(4, 8))
    shared = cache.share(4, 8)
    assert not isinstance(shared, str)
    np.testing.assert_array_equal(ray.get(shared), noise(4, 8))


def test_only_an_existing_local_file_is_opened_locally(cache: ChipCache) -> None:
    assert cache.open_local() is None
    cache.publish(noise(3, 8))
    opened_NHWC = cache.open_local()
    assert opened_NHWC is not None
    np.testing.assert_array_equal(opened_NHWC, noise(3, 8))
    assert ChipCache("s3://bucket/prepare/chips.npy").open_local() is None


def test_chips_of_sixteen_bits(tmp_path: Path) -> None:
    layout = BandLayout(tuple(BandConfig(name=name) for name in ("a", "b", "c", "d", "e")))
    cache = ChipCache(str(tmp_path / "chips.npy"))
    made = np.random.default_rng(0).integers(0, 65536, (9, 8, 8, 5)).astype(np.uint16)
    assert cache.create(9, 8, layout).dtype == np.uint16
    cache.write_rows(0, made[:4])
    cache.write_rows(4, made[4:])
    rows = np.array([0, 2, 3, 8])
    np.testing.assert_array_equal(cache.keep_rows(rows), made[rows])
    cache.publish()
    np.testing.assert_array_equal(cache.open(), made[rows])
    with pytest.raises(RunDirError, match="must hold 4 chips of 8 px"):
        cache.share(4, 8)
    eight = BandLayout(layout.bands, "uint8")
    with pytest.raises(RunDirError, match="with 5 bands of uint8"):
        cache.share(4, 8, eight)
