"""Checksums: whole for small files, sampled for large ones, each file read once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from canopy.storage import checksum as module
from canopy.storage.checksum import BLOCK, WHOLE_LIMIT, Checksum, checksum


def test_a_small_file_is_hashed_whole(tmp_path: Path) -> None:
    for content in (b"", b"x", b"ab" * 5_000_000):
        file = tmp_path / f"{len(content)}"
        file.write_bytes(content)
        assert checksum(str(file)) == Checksum(len(content), hashlib.sha256(content).hexdigest())


def test_a_large_file_is_sampled_at_both_ends_and_between(tmp_path: Path) -> None:
    file = tmp_path / "large"
    size = WHOLE_LIMIT + 5
    with file.open("wb") as stream:
        stream.truncate(size)
    before = checksum(str(file))
    assert before.sampled
    assert before.size == size
    for offset in (0, size - 1, (size - BLOCK) // 15 * 7 + 10):
        with file.open("r+b") as stream:
            stream.seek(offset)
            stream.write(b"\1")
        os.utime(file, ns=(offset, offset))
        after = checksum(str(file))
        assert after != before
        before = after


def test_a_file_is_read_again_only_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"one")
    first = checksum(str(file))
    with monkeypatch.context() as patch:
        patch.setattr(module, "_read", None)
        assert checksum(str(file)) == first
    file.write_bytes(b"two")
    assert checksum(str(file)) != first


def test_the_json_form_comes_back(tmp_path: Path) -> None:
    for one in (Checksum(3, "ab"), Checksum(3, "ab", sampled=True)):
        assert Checksum.from_json(one.to_json()) == one
    assert Checksum(3, "ab").to_json() == {"bytes": 3, "sha256": "ab"}
    unusable: list[object] = [None, [], {}, {"bytes": 3}, {"bytes": None, "sha256": "ab"}]
    for damaged in unusable:
        with pytest.raises(ValueError, match="checksum must"):
            Checksum.from_json(damaged)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        checksum(str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        checksum(str(tmp_path))
