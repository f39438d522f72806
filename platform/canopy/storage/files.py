"""Reading and writing of files at local paths and URIs (``s3://``, ``gs://``, ``abfs://``, ``hdfs://``, ``file://``).

All other modules of Canopy read and write through these functions. A write is atomic and durable: a local
file is written to its directory under a temporary name, synced and renamed; an object of a store appears when
it is complete.

Addresses are those of :mod:`canopy.storage.filesystems`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from canopy.errors import InputError, StorageError
from canopy.storage import local_files
from canopy.storage.filesystems import absolute, disk_errors, expanded, resolve, shown, store_errors
from canopy.storage.local_files import FileState
from canopy.storage.paths import is_uri, join, parent, stem, suffix

__all__ = [
    "absolute",
    "copy_here",
    "delete",
    "disk_errors",
    "exists",
    "is_dir",
    "is_uri",
    "join",
    "list_directories",
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


def list_directories(directory: str) -> list[str]:
    """Names of the directories in ``directory``, in alphabetical order; links to directories count.

    Raises:
        FileNotFoundError: when there is no such directory.
        StorageError: when the object store refuses.
        InputError: when the directory may not be read, or a name is not text.
    """
    filesystem, inner = resolve(directory)
    if isinstance(filesystem, fs.LocalFileSystem):
        return local_files.directories(inner)
    with store_errors(directory):
        found = filesystem.get_file_info(fs.FileSelector(inner))
    return sorted(str(i.base_name) for i in found if i.type == fs.FileType.Directory)


def read_bytes(path: str, max_bytes: int | None = None) -> bytes:
    """The whole file.

    Raises:
        FileNotFoundError: when there is no such file.
        OSError: when it is larger than ``max_bytes``; nothing is read then.
        StorageError: when the object store refuses.
    """
    if not is_uri(path):
        return local_files.read(str(expanded(path)) if path.startswith("~") else path, max_bytes)
    filesystem, inner = resolve(path)
    with store_errors(path), filesystem.open_input_file(inner) as stream:
        size = stream.size()
        if max_bytes is None or size <= max_bytes:
            # One request: an object that is replaced between two requests would come out as a mixture.
            return bytes(stream.read_at(size, 0))
    raise local_files.too_large_error(size, max_bytes)


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


def copy_here(path: str, source: Path) -> None:
    """Write a copy of a local file atomically and durably, without holding it in memory.

    Args:
        path: path or URI to write.
        source: the local file.

    Raises:
        StorageError: when the object store refuses, or the disk is full or fails.
    """

    def mapped() -> memoryview:
        with pa.memory_map(str(source)) as file:
            return memoryview(file.read_buffer())

    _write(path, lambda temporary: shutil.copyfile(source, temporary), mapped)


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


def read_table(
    path: str, columns: list[str] | None = None, remedy: str = "Delete it, or restore it."
) -> pa.Table:
    """A Parquet file, or some of its columns.

    Args:
        path: path or URI.
        columns: names of the columns; None for all.
        remedy: what to do about a file that is not Parquet; by default about a file of Canopy's own.

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
        raise InputError(shown(path), "must be a Parquet file", error, remedy) from None


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


def delete_empty_directory(path: str) -> None:
    """Delete a local directory, if nothing is in it; object stores have no empty directories."""
    filesystem, inner = resolve(path)
    if isinstance(filesystem, fs.LocalFileSystem):
        with contextlib.suppress(OSError):
            Path(inner).rmdir()


def metadata(table: pa.Table) -> Mapping[str, str]:
    """The schema metadata of a table as text."""
    return {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}


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
