"""Reading and writing of files at local paths and URIs (``s3://``, ``gs://``, ``abfs://``, ``hdfs://``, ``file://``).

All other modules of Canopy read and write through these functions. A write is atomic and durable: a local
file is written to its directory under a temporary name, synced and renamed; an object of a store appears when
it is complete.

A local path is taken literally, whatever characters it holds. The path of a URI is also literal (no
percent-decoding); only a trailing query is split off, as in
``s3://bucket/runs?region=eu-west-1&endpoint_override=host:9000``. Region and endpoint come from this query or
from the environment, credentials from the environment only (``AWS_*``, ``GOOGLE_APPLICATION_CREDENTIALS``,
``AZURE_*``): a URI that holds credentials is refused.
"""

from __future__ import annotations

import errno
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from canopy.errors import (
    ConfigError,
    InfrastructureError,
    InputError,
    StorageError,
    refuse_credentials,
    without_credentials,
)
from canopy.storage import local_files
from canopy.storage.paths import is_uri, join, parent, split_query, stem, suffix

__all__ = [
    "absolute",
    "delete",
    "disk_errors",
    "exists",
    "is_dir",
    "is_uri",
    "join",
    "list_files",
    "metadata",
    "parent",
    "read_bytes",
    "read_image",
    "read_json",
    "read_table",
    "resolve",
    "shown",
    "stem",
    "store_errors",
    "suffix",
    "write_bytes",
    "write_json",
    "write_table",
]
from canopy.storage.local_files import FileState

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
        return _local(), os.path.abspath(_expanded(path))  # noqa: PTH100 (also removes "..")
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


def exists(path: str) -> bool:
    """Whether ``path`` is a file or a directory.

    Raises:
        StorageError: when the object store refuses.
    """
    return bool(_kind(path) != fs.FileType.NotFound)


def is_dir(path: str) -> bool:
    """Whether ``path`` is a directory (in an object store: a prefix with objects under it).

    Raises:
        StorageError: when the object store refuses.
    """
    return bool(_kind(path) == fs.FileType.Directory)


def list_files(directory: str, recursive: bool = False) -> dict[str, int]:
    """Size in bytes of each file in ``directory`` by its relative path, in alphabetical order.

    A dangling link has the size ``local_files.BROKEN``. Errors are those of :func:`list_states`.
    """
    return {name: state.size for name, state in list_states(directory, recursive).items()}


def list_states(directory: str, recursive: bool = False) -> dict[str, FileState]:
    """Size and time of change of each file in ``directory`` by its relative path, in alphabetical order.

    One listing, however many files: an object store charges by the request.

    Raises:
        FileNotFoundError: when there is no such directory.
        StorageError: when the object store refuses.
        InputError: when a directory may not be read, or a name is not text.
    """
    filesystem, inner = resolve(directory)
    if isinstance(filesystem, fs.LocalFileSystem):
        return local_files.states(inner, recursive)
    with store_errors(directory):
        found = filesystem.get_file_info(fs.FileSelector(inner, recursive=recursive))
    skip = len(inner.rstrip("/")) + 1
    return {
        i.path[skip:]: FileState(i.size, i.mtime_ns)
        for i in sorted(found, key=lambda i: str(i.path))
        if i.is_file
    }


def read_bytes(path: str, max_bytes: int | None = None) -> bytes:
    """The whole file.

    Raises:
        FileNotFoundError: when there is no such file.
        OSError: when it is larger than ``max_bytes``; nothing is read then.
        StorageError: when the object store refuses.
    """
    if not is_uri(path):
        return local_files.read(str(_expanded(path)) if path.startswith("~") else path, max_bytes)
    filesystem, inner = resolve(path)
    with store_errors(path), filesystem.open_input_file(inner) as stream:
        size = stream.size()
        if max_bytes is None or size <= max_bytes:
            # One request: an object that is replaced between two requests would come out as a mixture.
            return bytes(stream.read_at(size, 0))
    raise local_files.too_large(size, max_bytes)


def read_image(path: str, max_bytes: int | None = None) -> bytes:
    """The whole file of one image among many; a failure that concerns this image alone is an ``OSError``.

    Raises:
        OSError: when it is missing or larger than ``max_bytes``, or the object store refuses it (archived,
            encrypted, denied) but serves its directory.
        StorageError: when the object store refuses the directory too.
    """
    try:
        return read_bytes(path, max_bytes)
    except StorageError as error:
        filesystem, inner = resolve(parent(path)[0])
        with store_errors(path):
            found = filesystem.get_file_info(inner)
        if found.type == fs.FileType.NotFound:
            raise
        raise OSError(f"the object store refuses it: {error.got}") from None


def write_bytes(path: str, data: bytes) -> None:
    """Write a file atomically and durably; missing directories are made.

    Raises:
        StorageError: when the object store refuses, or the disk is full or fails.
    """
    _write(path, lambda temporary: temporary.write_bytes(data), lambda: data)


def read_json(path: str) -> Any:
    """The value in a JSON file.

    Raises:
        FileNotFoundError: when there is no such file.
        InputError: when it is not JSON.
        StorageError: when the object store refuses.
    """
    data = read_bytes(path)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(shown(path), "must be JSON", error, "Delete it, or restore it.") from None


def write_json(path: str, value: Any) -> None:
    """Write a JSON file atomically and durably, indented; keys keep their order.

    Raises:
        ValueError: when a number is not finite (JSON has no NaN).
        StorageError: when the object store refuses, or the disk is full or fails.
    """
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    write_bytes(path, f"{text}\n".encode())


def read_table(path: str, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file, or some of its columns.

    Raises:
        FileNotFoundError: when there is no such file.
        InputError: when it is not Parquet, or damaged.
        StorageError: when the object store refuses.
    """
    remote = is_uri(path)
    source = pa.BufferReader(read_bytes(path)) if remote else pa.OSFile(resolve(path)[1])
    try:
        with source:
            return pq.ParquetFile(source).read(columns=columns)
    except (pa.ArrowException, OSError) as error:  # (pyarrow has OSError for some kinds of damage)
        raise InputError(shown(path), "must be a Parquet file", error, "Delete it, or restore it.") from None


def write_table(path: str, table: pa.Table) -> None:
    """Write a Parquet file atomically and durably; missing directories are made.

    Raises:
        StorageError: when the object store refuses, or the disk is full or fails.
    """

    def in_memory() -> memoryview:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return memoryview(sink.getvalue())

    _write(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"), in_memory)


def delete(path: str) -> None:
    """Delete a file durably; nothing happens where it is missing.

    Raises:
        StorageError: when the object store refuses, or the disk fails.
    """
    filesystem, inner = resolve(path)
    with store_errors(path), disk_errors(path):
        if isinstance(filesystem, fs.LocalFileSystem):
            local_files.delete(Path(inner))
        elif filesystem.get_file_info(inner).is_file:
            filesystem.delete_file(inner)


def metadata(table: pa.Table) -> Mapping[str, str]:
    """The schema metadata of a table as text."""
    return {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}


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


def _expanded(path: str) -> Path:
    """``path`` with ``~`` or ``~/`` at its start replaced by the home directory."""
    return Path(path).expanduser() if path == "~" or path.startswith("~/") else Path(path)


def _write(path: str, locally: Callable[[Path], object], whole: Callable[[], bytes | memoryview]) -> None:
    """Write at a local path by ``locally`` (a function of a temporary path), else the data of ``whole``."""
    filesystem, inner = resolve(path)
    if isinstance(filesystem, fs.LocalFileSystem):
        with disk_errors(path):
            local_files.write_atomically(Path(inner), locally)
        return
    data = whole()  # made before the stream opens: closing a stream half-way would publish the half
    with store_errors(path), filesystem.open_output_stream(inner) as stream:
        stream.write(data)


def _kind(path: str) -> fs.FileType:
    filesystem, inner = resolve(path)
    try:
        with store_errors(path):
            return filesystem.get_file_info(inner).type
    except PermissionError:
        need = "must be in a directory that may be read"
        raise InputError(path, need, "permission denied", "Correct the permissions.") from None


@functools.cache
def _local() -> fs.LocalFileSystem:
    return fs.LocalFileSystem()


@functools.lru_cache(maxsize=32)
def _remote(uri: str) -> fs.FileSystem:
    """One client per bucket and process: making a client costs more than reading a chip."""
    return fs.FileSystem.from_uri(uri)[0]
