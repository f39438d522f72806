"""Weights kept on this machine: files from object stores, fetched once and shared by all its processes.

The cache is ``canopy/weights`` in the user's cache directory (``~/.cache``, or ``XDG_CACHE_HOME``), or the
directory of the environment variable ``CANOPY_CACHE``. Weights of the Hugging Face hub stay in the hub's own
cache, which other programs share; both are listed by ``canopy weights``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock
from torch.hub import download_url_to_file

from canopy.errors import ConfigError, StorageError
from canopy.storage import files
from canopy.storage.checksum import sha256_of
from canopy.storage.paths import parent

CACHE_VARIABLE = "CANOPY_CACHE"
RECORD = "source.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedWeights:
    """One file of weights on this machine."""

    source: str
    """What to write into ``model.weights``."""
    path: str
    """The local file."""
    size: int
    """Its size in bytes."""
    changed: int = 0
    """Time of change of the original in nanoseconds, by which a replacement is noticed; 0 if unknown."""


def cache_directory() -> Path:
    """The directory of the cache; it may not exist yet."""
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own).expanduser() / "weights"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "canopy" / "weights"


def fetch(uri: str) -> Path:
    """The local copy of an object in a store; it is downloaded where it is missing or was replaced since.

    Only one process of this machine downloads, the others wait for it. When the store does not answer, a copy
    from earlier is used and a warning says so.

    Raises:
        FileNotFoundError: when there is no such object.
        InputError: when the URI is malformed.
        OSError: when the store does not answer and there is no copy, or when the cache cannot be written.
    """
    directory = cache_directory() / hashlib.sha256(uri.encode()).hexdigest()[:16]
    target = directory / (parent(uri)[1] or "weights")
    with locked(directory):
        known = _record(directory)
        try:
            filesystem, inner = files.resolve(uri)
            with files.store_errors(uri):
                info = filesystem.get_file_info(inner)
            if not info.is_file:
                raise FileNotFoundError("no such file")
        except StorageError as error:
            if known is None:
                raise
            logger.warning(
                "%s cannot be reached (%s); the copy in the cache is used", files.shown(uri), error.got
            )
            return Path(known.path)
        if known is not None and (known.size, known.changed) == (info.size, info.mtime_ns or 0):
            return Path(known.path)
        files.write_bytes(str(target), files.read_bytes(uri))
        record = CachedWeights(uri, str(target), target.stat().st_size, info.mtime_ns or 0)
        files.write_json(str(directory / RECORD), asdict(record))
        return target


def fetch_url(url: str, source: str, hash_prefix: str | None = None) -> Path:
    """The local copy of a file of the web, downloaded once per machine; what is at the address never changes.

    Args:
        url: its address.
        source: what to write into ``model.weights``.
        hash_prefix: beginning of its SHA-256; None accepts every file.

    Raises:
        OSError: when it cannot be downloaded, another file came, or the cache cannot be written.
    """
    directory = cache_directory() / hashlib.sha256(url.encode()).hexdigest()[:16]
    target = directory / (url.rpartition("/")[2] or "weights")
    with locked(directory):
        known = _record(directory)
        if known is not None:
            return Path(known.path)
        try:
            download_url_to_file(url, str(target), hash_prefix, progress=False)
        except RuntimeError as error:  # the hash differs
            raise OSError(str(error)) from error
        files.write_json(
            str(directory / RECORD), asdict(CachedWeights(source, str(target), target.stat().st_size))
        )
        return target


def cached_copies() -> list[CachedWeights]:
    """All complete files in the cache."""
    directory = cache_directory()
    found = [_record(path) for path in sorted(directory.iterdir())] if directory.is_dir() else []
    return [record for record in found if record is not None]


def check_sha256(path: Path, expected: str | None, thing: str, location: str) -> None:
    """Refuse a file whose SHA-256 differs from ``expected``; None accepts every file.

    Raises:
        ConfigError: naming both hashes.
        OSError: when it cannot be read.
    """
    if expected is None:
        return
    found = sha256_of(str(path))
    if found != expected.lower():
        remedy = "Correct the hash, or fetch the file again from where the hash was published."
        raise ConfigError(thing, f"must have SHA-256 {expected.lower()}", f"{location} with {found}", remedy)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of one entry of the cache, against all threads and processes of this machine.

    Raises:
        OSError: when the cache cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / ".lock"):
        yield


def _record(directory: Path) -> CachedWeights | None:
    """The record of an entry, if its file is there and complete."""
    try:
        record = CachedWeights(**json.loads((directory / RECORD).read_text(encoding="utf-8")))
        return record if Path(record.path).stat().st_size == record.size else None
    except (OSError, ValueError, TypeError):
        return None
