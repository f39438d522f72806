"""Local files: atomic and durable writes, locks, listings with links."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from canopy.errors import InputError, StorageError
from canopy.storage import files, local_files


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Syncs and renames in their order; each still happens."""
    found: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def traced_fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115
        found.append(f"sync {'part' if path.suffix == '.part' else path.name}")
        fsync(descriptor)

    def traced_replace(self: Path, target: Path) -> Path:
        found.append(f"rename to {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(Path, "replace", traced_replace)
    return found


def test_a_write_syncs_the_file_then_renames_then_syncs_the_directory(
    tmp_path: Path, events: list[str]
) -> None:
    local_files.write_atomically(tmp_path / "a" / "b" / "x", lambda beside: beside.write_bytes(b"1"))
    assert events == [f"sync {tmp_path.name}", "sync a", "sync part", "rename to x", "sync b"]
    assert (tmp_path / "a" / "b" / "x").read_bytes() == b"1"


def test_every_kind_of_file_is_durable(tmp_path: Path, events: list[str]) -> None:
    writes: list[Callable[[], None]] = [
        lambda: files.write_bytes(str(tmp_path / "x"), b"1"),
        lambda: files.write_json(str(tmp_path / "x"), {}),
        lambda: files.write_table(str(tmp_path / "x"), pa.table({"a": [1]})),
    ]
    for write in writes:
        events.clear()
        write()
        assert events == ["sync part", "rename to x", f"sync {tmp_path.name}"]
    events.clear()
    files.delete(str(tmp_path / "x"))
    files.delete(str(tmp_path / "x"))
    assert events == [f"sync {tmp_path.name}"]


def test_a_filesystem_that_cannot_sync_directories_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    local_files.sync_directory(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        local_files.sync(tmp_path)


def test_links_that_lead_nowhere_are_no_directories(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("none")
    assert local_files.directories(str(tmp_path)) == ["a", "link"]


def test_a_full_disk_is_a_storage_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"old")

    def fill(beside: Path) -> None:
        beside.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    need = r"x must be on a disk that works\. Got: No space left on device\."
    with pytest.raises(StorageError, match=need), files.disk_errors(str(file)):
        local_files.write_atomically(file, fill)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"old")]


def test_a_lock_excludes_other_threads(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        with local_files.directory_lock(tmp_path) as locked:
            assert locked
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, most) == (0, 1)


@pytest.mark.parametrize("size", [0, 1, local_files.FIRST_READ, local_files.FIRST_READ + 1, 1_000_000])
def test_a_file_is_read_whole(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "x").write_bytes(content)
    assert local_files.read(str(tmp_path / "x")) == content


def test_listings_follow_links_once_and_name_dangling_ones(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").write_bytes(b"12")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "linked").symlink_to(tmp_path / "a" / "b" / "x")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    assert local_files.sizes(str(tmp_path), recursive=True) == {
        "a/b/x": 2,
        "dangling": local_files.BROKEN,
        "linked": 2,
    }
    assert list(local_files.sizes(str(tmp_path), recursive=False)) == ["dangling", "linked"]


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.jpg")).touch()
    with pytest.raises(InputError, match="A file's name must be UTF-8"):
        local_files.sizes(str(tmp_path), recursive=False)


def test_a_device_that_never_ends_is_no_image() -> None:
    with pytest.raises(OSError, match="not a regular file"):
        local_files.read("/dev/zero", max_bytes=1 << 20)
