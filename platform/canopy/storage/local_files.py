"""Files of this machine's own disks: what :mod:`canopy.storage.files` does where a path is no URI."""

from __future__ import annotations

import os
import stat

from canopy.errors import InputError

AT_ONCE = 1 << 16
"""Bytes that are read of a file before it is asked for its length."""
BROKEN = -1
"""In place of the size of a link that leads nowhere, or where it may not."""


def read(path: str) -> bytes:
    """The whole file, in two thirds of the time of ``open``, which is a quarter of that of a small image."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data, length = b"", AT_ONCE  # small files are all there at once: nobody asks how long they are
        while more := os.read(file, length):
            data += more
            if len(more) == length:
                length = max(AT_ONCE, os.fstat(file).st_size - len(data))
        return data
    finally:
        os.close(file)


def sizes(directory: str, recursive: bool) -> dict[str, int]:
    """Bytes of each file under ``directory`` by its path relative to it; ``BROKEN`` of a dangling link.

    Links are followed, but for those to a directory that they are in.

    Raises:
        FileNotFoundError: when there is no such directory.
        InputError: when a directory may not be read, or a name is no text.
    """
    out: dict[str, int] = {}
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        inner, above = waiting.pop()
        try:
            here, entries = _opened(os.path.join(directory, inner))  # noqa: PTH118 (Path is slow)
        except FileNotFoundError:
            if inner:  # it has gone meanwhile
                continue
            raise
        if here in above:
            continue
        above |= {here}
        for entry in entries:
            name = f"{inner}/{entry.name}" if inner else entry.name
            if not _is_text(name):
                got = f"{os.fsencode(name)!r} in {directory}"
                raise InputError("A file's name", "must be UTF-8", got, "Rename it.")
            found = _status(entry)
            if found is None:
                if entry.is_symlink():  # else it has gone meanwhile
                    out[name] = BROKEN
            elif stat.S_ISREG(found.st_mode):
                out[name] = found.st_size
            elif recursive and stat.S_ISDIR(found.st_mode):
                waiting.append((name, above))
    return dict(sorted(out.items()))


def _opened(place: str) -> tuple[tuple[int, int], list[os.DirEntry[str]]]:
    """What tells a directory from all others, and what is in it."""
    try:
        here = os.stat(place)  # noqa: PTH116
        with os.scandir(place) as found:
            return (here.st_dev, here.st_ino), list(found)
    except PermissionError:
        remedy = "Correct its permissions, or name another directory."
        raise InputError(place, "must be a directory that may be read", "permission denied", remedy) from None


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Of what an entry leads to, or None."""
    try:
        return entry.stat()
    except OSError:
        return None


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
