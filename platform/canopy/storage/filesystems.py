"""Addresses of files: the pyarrow filesystem behind a local path or URI, and its errors in Canopy's terms.

A local path is taken literally, whatever characters it holds. The path of a URI is also literal (no
percent-decoding); only a trailing query is split off, as in
``s3://bucket/runs?region=eu-west-1&endpoint_override=host:9000``. Region and endpoint come from this query or
from the environment, credentials from the environment only (``AWS_*``, ``GOOGLE_APPLICATION_CREDENTIALS``,
``AZURE_*``): a URI that holds credentials is refused.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from canopy.errors import (
    ConfigError,
    InfrastructureError,
    InputError,
    StorageError,
    refuse_credentials,
    without_credentials,
)
from canopy.storage.paths import is_uri, split_query

SCHEMES = ("file", "s3", "gs", "gcs", "hdfs", "abfs", "abfss")
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE)
"""Error numbers of a disk that is full or fails."""


def shown(path: str) -> str:
    """``path`` without credentials, for messages."""
    return without_credentials(path)


def resolve(path: str) -> tuple[fs.FileSystem, str]:
    """The filesystem of ``path`` and the path within it; a local path is made absolute.

    Raises:
        InputError: when the scheme is unknown, the URI malformed, or it holds credentials.
        StorageError: when the object store cannot be reached.
    """
    if not is_uri(path):
        return _local(), os.path.abspath(expanded(path))  # noqa: PTH100 (also removes "..")
    location, query = split_query(path)
    scheme, _, location = location.partition("://")
    if scheme not in SCHEMES:
        remedy = f"Known: {', '.join(SCHEMES)}, or a path without a scheme."
        raise ConfigError(f"The scheme of {shown(path)}", "must be one that Canopy can read", scheme, remedy)
    head, _, inner = location.partition("/")
    if scheme == "file":
        return _local(), "/" + inner
    refuse_credentials("An address", path)
    if not head:
        raise ConfigError(shown(path), "must name a bucket", "none", f"Write {scheme}://BUCKET/PATH.")
    try:
        with store_errors(path):
            filesystem = _remote(f"{scheme}://{head}/{query.rstrip('?&')}")
    except pa.ArrowInvalid as error:
        raise ConfigError(shown(path), "must be a URI that pyarrow can read", error, "Correct it.") from None
    inner = inner.rstrip("/")
    if scheme in {"s3", "gs", "gcs"}:  # the path within these filesystems begins with the bucket
        return filesystem, f"{head.rpartition('@')[2]}/{inner}".rstrip("/")
    return filesystem, "/" + inner if scheme == "hdfs" else inner


def absolute(path: str) -> str:
    """A local path made absolute, so that it means the same in every process; a URI unchanged."""
    return path if is_uri(path) else resolve(path)[1]


def expanded(path: str) -> Path:
    """``path`` with ``~`` or ``~/`` at its start replaced by the home directory."""
    return Path(path).expanduser() if path == "~" or path.startswith("~/") else Path(path)


@contextmanager
def store_errors(path: str) -> Iterator[None]:
    """Turn an object store's refusal into a ``StorageError``; a missing file stays ``FileNotFoundError``.

    A bucket that does not exist is an ``InputError``: no retry makes it appear.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        if not is_uri(path) or isinstance(error, InputError | InfrastructureError | pa.ArrowInvalid):
            raise
        remedy = "Check the bucket's name, the region and your credentials."
        kind = InputError if "NO_SUCH_BUCKET" in str(error) else StorageError
        raise kind(shown(path), "must be reachable", str(error).splitlines()[0], remedy) from error


@contextmanager
def disk_errors(path: str) -> Iterator[None]:
    """Turn the fault of a disk that is full or fails into a ``StorageError``."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        reason, remedy = os.strerror(error.errno), "Free some room, or choose another disk."
        raise StorageError(shown(path), "must be on a disk that works", reason, remedy) from error


@functools.cache
def _local() -> fs.LocalFileSystem:
    return fs.LocalFileSystem()


@functools.lru_cache(maxsize=32)
def _remote(uri: str) -> fs.FileSystem:
    """One client per bucket and process: making a client costs more than reading a chip."""
    return fs.FileSystem.from_uri(uri)[0]
