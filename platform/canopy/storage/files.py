"""Local paths and URIs alike (``s3://``, ``gs://``), through pyarrow's filesystems.

Everything else in Canopy reads and writes through these functions. A write is atomic: on a local disk
it goes beside its goal and is renamed, in an object store an object appears when it is complete.
Credentials, region and endpoint of an object store come from its usual environment variables
(``AWS_*``, ``GOOGLE_APPLICATION_CREDENTIALS``) or from the URI's query
(``s3://bucket/runs?region=eu-west-1&endpoint_override=localhost:9000&scheme=http``).
"""

from __future__ import annotations

import functools
import json
import os
import posixpath
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from canopy.errors import InfrastructureError, InputError, StorageError, without_credentials
from canopy.storage import local_files

QUERY = re.compile(r"\?\w+=[^&?]*(?:&\w+=[^&?]*)*&?$")
SCHEMES = ("file", "s3", "gs", "gcs", "hdfs", "abfs", "abfss")


def is_uri(path: str) -> bool:
    """Whether ``path`` is written as ``scheme://…`` rather than as a path of the local disk."""
    return "://" in path


def shown(path: str) -> str:
    """``path`` as it may stand in a message: without credentials."""
    return without_credentials(path)


def _split_query(uri: str) -> tuple[str, str]:
    """``uri`` without its query, and the query with its question mark: a name may have one of its own."""
    found = QUERY.search(uri)
    return (uri[: found.start()], found.group()) if found else (uri, "")


def resolve(path: str) -> tuple[fs.FileSystem, str]:
    """The filesystem behind ``path`` and the path inside it; local paths are made absolute.

    Raises:
        InputError: when the scheme is unknown or the URI malformed.
    """
    if not is_uri(path):
        return _local(), os.path.abspath(Path(path).expanduser())  # noqa: PTH100 (also takes ".." away)
    location, query = _split_query(path)
    scheme, _, location = location.partition("://")
    if scheme not in SCHEMES:
        remedy = f"Known: {', '.join(SCHEMES)}, or a path without a scheme."
        raise InputError(f"The scheme of {shown(path)}", "must be one that Canopy can read", scheme, remedy)
    head, _, inner = location.partition("/")
    if scheme == "file":
        return _local(), "/" + inner
    if not head:
        raise InputError(shown(path), "must name a bucket", "none", f"Write {scheme}://BUCKET/PATH.")
    try:
        with _reachable(path):
            filesystem = _remote(f"{scheme}://{head}/{query}")
    except pa.ArrowInvalid as error:
        raise InputError(
            shown(path), "must be a URI as pyarrow reads it", str(error), "Correct it."
        ) from None
    inner = inner.rstrip("/")
    keeps_head = scheme in {"s3", "gs", "gcs"}  # the path inside begins with the bucket
    if keeps_head:
        head = head.rpartition("@")[2]
        return filesystem, f"{head}/{inner}".rstrip("/")
    return filesystem, "/" + inner if scheme == "hdfs" else inner


def absolute(path: str) -> str:
    """A local path made absolute, so that it means the same in every process; URIs as they are."""
    return path if is_uri(path) else resolve(path)[1]


def join(root: str, *parts: str) -> str:
    """``root`` extended by ``parts``, in front of a URI's query."""
    if not is_uri(root):
        return str(Path(root, *parts))
    location, query = _split_query(root)
    return posixpath.join(location, *parts) + query


def parent(path: str) -> tuple[str, str]:
    """The directory of ``path``, a URI's query kept, and the name in it."""
    location, query = _split_query(path) if is_uri(path) else (path, "")
    directory, _, name = location.rpartition("/")
    return directory + query, name


def suffix(path: str) -> str:
    """The extension of ``path`` with its dot, in lower case, a URI's query left out."""
    return posixpath.splitext(parent(path)[1])[1].lower()


def exists(path: str) -> bool:
    """Whether ``path`` is a file or a directory.

    Raises:
        StorageError: when the object store refuses.
    """
    return bool(_kind(path) != fs.FileType.NotFound)


def is_dir(path: str) -> bool:
    """Whether ``path`` is a directory (in an object store: a prefix with something under it).

    Raises:
        StorageError: when the object store refuses.
    """
    return bool(_kind(path) == fs.FileType.Directory)


def list_files(directory: str, recursive: bool = False) -> dict[str, int]:
    """Size in bytes of each file in ``directory``, by its path relative to it, in alphabetical order.

    One listing, however many files: an object store charges by the request. A link that leads nowhere has
    the size ``local_files.BROKEN``.

    Raises:
        FileNotFoundError: when there is no such directory.
        StorageError: when the object store refuses.
        InputError: when a directory may not be read, or a name is not text.
    """
    filesystem, inner = resolve(directory)
    if isinstance(filesystem, fs.LocalFileSystem):
        return local_files.sizes(inner, recursive)
    with _reachable(directory):
        found = filesystem.get_file_info(fs.FileSelector(inner, recursive=recursive))
    skip = len(inner.rstrip("/")) + 1
    return {i.path[skip:]: i.size for i in sorted(found, key=lambda i: str(i.path)) if i.is_file}


def read_bytes(path: str) -> bytes:
    """The whole file.

    Raises:
        FileNotFoundError: when there is no such file.
        StorageError: when the object store refuses.
    """
    if not is_uri(path):
        return local_files.read(path)
    filesystem, inner = resolve(path)
    with _reachable(path), filesystem.open_input_file(inner) as stream:
        # in one request: read part by part, an object that is replaced meanwhile comes out as a mixture
        return bytes(stream.read_at(stream.size(), 0))


def read_image(path: str) -> bytes:
    """The whole file of one image among many: one that cannot be had is a fault of the image's.

    Raises:
        OSError: when it is missing, or the object store refuses it (archived, encrypted, denied) while it
            answers for the directory.
        StorageError: when the object store refuses the directory, too: that is no fault of the image.
    """
    try:
        return read_bytes(path)
    except StorageError as error:
        filesystem, inner = resolve(parent(path)[0])
        with _reachable(path):
            found = filesystem.get_file_info(inner)
        if found.type == fs.FileType.NotFound:
            raise
        raise OSError(f"the object store refuses it: {error.got}") from None


def write_bytes(path: str, data: bytes) -> None:
    """Write atomically; directories on the way are made.

    Raises:
        StorageError: when the object store refuses.
    """

    def write(beside: Path) -> None:
        with beside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())

    _write(path, write, lambda: data)


def read_json(path: str) -> Any:
    """The value in a JSON file.

    Raises:
        FileNotFoundError: when there is no such file.
        InputError: when it is not JSON, or when the object store refuses.
    """
    try:
        return json.loads(read_bytes(path))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(shown(path), "must be JSON", str(error), "Delete it, or restore it.") from None


def write_json(path: str, value: Any) -> None:
    """Write atomically, for people to read too; keys keep their order.

    Raises:
        ValueError: when a number is not finite (JSON has no NaN).
        StorageError: when the object store refuses.
    """
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    write_bytes(path, f"{text}\n".encode())


def read_table(path: str, columns: list[str] | None = None) -> pa.Table:
    """A Parquet file, or some columns of it.

    Raises:
        FileNotFoundError: when there is no such file.
        InputError: when it is not Parquet, or when the object store refuses.
    """
    filesystem, inner = resolve(path)
    try:
        with _reachable(path), filesystem.open_input_file(inner) as stream:
            return pq.ParquetFile(stream).read(columns=columns)
    except pa.ArrowInvalid as error:
        raise InputError(
            shown(path), "must be a Parquet file", str(error), "Delete it, or restore it."
        ) from None


def write_table(path: str, table: pa.Table) -> None:
    """Write a Parquet file atomically.

    Raises:
        StorageError: when the object store refuses.
    """

    def in_memory() -> memoryview:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return memoryview(sink.getvalue())

    _write(path, lambda beside: pq.write_table(table, beside, compression="zstd"), in_memory)


def _write(path: str, locally: Callable[[Path], None], whole: Callable[[], bytes | memoryview]) -> None:
    filesystem, inner = resolve(path)
    if not isinstance(filesystem, fs.LocalFileSystem):
        data = whole()  # made before the stream opens: closing a stream half-way would publish the half
        with _reachable(path), filesystem.open_output_stream(inner) as stream:
            stream.write(data)
        return
    goal = Path(inner)
    goal.parent.mkdir(parents=True, exist_ok=True)
    beside = goal.with_name(f".{goal.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        locally(beside)
        beside.replace(goal)
    finally:
        beside.unlink(missing_ok=True)


def _kind(path: str) -> fs.FileType:
    filesystem, inner = resolve(path)
    try:
        with _reachable(path):
            return filesystem.get_file_info(inner).type
    except PermissionError:
        raise InputError(path, "must lie where one may look", "permission denied", "Correct it.") from None


@functools.cache
def _local() -> fs.LocalFileSystem:
    return fs.LocalFileSystem()


@functools.lru_cache(maxsize=32)
def _remote(uri: str) -> fs.FileSystem:
    """One client per bucket and process: making one costs more than reading a chip."""
    return fs.FileSystem.from_uri(uri)[0]


@contextmanager
def _reachable(path: str) -> Iterator[None]:
    """Turns an object store's refusal into one clear error; a missing file stays ``FileNotFoundError``."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        if not is_uri(path) or isinstance(error, InputError | InfrastructureError | pa.ArrowInvalid):
            raise
        remedy = "Check the bucket's name, the region and your credentials."
        raise StorageError(shown(path), "must be reachable", str(error).splitlines()[0], remedy) from error


def metadata(table: pa.Table) -> Mapping[str, str]:
    """The schema metadata of a table as text."""
    return {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
