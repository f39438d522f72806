"""Hashes of files: ``checksum`` of a stage's outputs (16 blocks above 64 MiB), ``sha256_of`` of all else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from canopy.storage import files

WHOLE_LIMIT = 64 << 20
"""Largest file, in bytes, that is hashed whole."""
BLOCK = 1 << 20
"""Bytes per block that is hashed of a larger file."""
SAMPLED_BLOCKS = 16
"""Blocks that are hashed of a larger file: the first, the last, and others at equal distances."""
READ_SIZE = 8 << 20
KEPT = 4096
"""Checksums that a process remembers."""


@dataclass(frozen=True)
class Checksum:
    """Size and SHA-256 of a file.

    Args:
        size: bytes of the file.
        sha256: hexadecimal digest of the whole file, or of ``SAMPLED_BLOCKS`` blocks of ``BLOCK`` bytes.
        sampled: whether only blocks are hashed, as for files above ``WHOLE_LIMIT``: a change of a few bytes
            elsewhere is not noticed.
    """

    size: int
    sha256: str
    sampled: bool = False

    def to_json(self) -> dict[str, int | str]:
        """The form in ``done.json``."""
        return {"bytes": self.size, "sampled_sha256" if self.sampled else "sha256": self.sha256}

    @classmethod
    def from_json(cls, value: Any) -> Checksum:
        """The checksum in ``done.json``.

        Raises:
            ValueError: when the value does not have the form of :meth:`to_json`.
        """
        if not isinstance(value, dict):
            raise ValueError("a checksum must be an object")
        size, sampled = value.get("bytes"), "sampled_sha256" in value
        digest = value.get("sampled_sha256" if sampled else "sha256")
        if not isinstance(size, int) or not isinstance(digest, str):
            raise ValueError("a checksum must hold bytes and sha256")
        return cls(size, digest, sampled)


def checksum(path: str) -> Checksum:
    """The checksum of a file; a file of unchanged size and modification time is read once per process.

    Raises:
        FileNotFoundError: when there is no such file.
        StorageError: when the object store refuses.
    """
    filesystem, inner = files.resolve(path)
    with files.store_errors(path):
        info = filesystem.get_file_info(inner)
        if not info.is_file:
            raise FileNotFoundError(path)
        key = (path, info.size, info.mtime_ns)
        if key not in _known:
            if len(_known) >= KEPT:
                _known.clear()
            _known[key] = _read(filesystem, inner, info.size)
    return _known[key]


_known: dict[tuple[str, int, int | None], Checksum] = {}


def _read(filesystem: Any, inner: str, size: int) -> Checksum:
    digest = hashlib.sha256()
    sampled = size > WHOLE_LIMIT
    with filesystem.open_input_file(inner) as stream:
        for start, length in _sampled_blocks(size) if sampled else _whole(size):
            digest.update(stream.read_at(length, start))
    return Checksum(size, digest.hexdigest(), sampled)


def _whole(size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size, READ_SIZE):
        yield start, min(READ_SIZE, size - start)


def _sampled_blocks(size: int) -> Iterator[tuple[int, int]]:
    for n in range(SAMPLED_BLOCKS):
        yield n * (size - BLOCK) // (SAMPLED_BLOCKS - 1), BLOCK


def sha256_of(path: str) -> str:
    """SHA-256 of a whole file, 64 hex digits.

    Raises:
        FileNotFoundError: when there is no such file.
        StorageError: when the object store refuses.
    """
    filesystem, inner = files.resolve(path)
    digest = hashlib.sha256()
    with files.store_errors(path), filesystem.open_input_file(inner) as stream:
        for start in range(0, stream.size(), READ_SIZE):
            digest.update(stream.read_at(READ_SIZE, start))
    return digest.hexdigest()
