"""Files as they come from broken disks and broken transfers: pieces zeroed, pieces all ones, the end lost."""

from __future__ import annotations

from collections.abc import Iterator

WINDOW = 16
"""Bytes: more than one TIFF tag, whose entry takes 12."""


def overwritten(data: bytes, first: int = 0, end: int | None = None, step: int = 1) -> Iterator[bytes]:
    """The file with every window from ``first`` on (each ``step``-th) filled with zeros, then with ones."""
    for start in range(first, (len(data) if end is None else end) - WINDOW + 1, step):
        for filling in (b"\0", b"\xff"):
            damaged = data[:start] + filling * WINDOW + data[start + WINDOW :]
            if damaged != data:
                yield damaged


def truncated(data: bytes, step: int = 1) -> Iterator[bytes]:
    """The file cut at every length, or at each ``step``-th."""
    for length in range(0, len(data), step):
        yield data[:length]
