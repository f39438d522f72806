"""The samples of a WebDataset's tar file.

Consecutive members with one name up to its first dot are a sample; what follows the dot says what a member is
(``000123.jpg``, ``000123.json``).
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from typing import IO, Any, cast

import pyarrow as pa

from canopy.config import ShardsConfig
from canopy.data.label_cells import cell_text
from canopy.data.listing import is_hidden
from canopy.data.shard_samples import (
    IMAGE_ENDINGS,
    REMEDY,
    BadSampleError,
    Sample,
    fitting_image,
    image_ending,
    label_names,
    storable,
)
from canopy.errors import DataError
from canopy.storage import files
from canopy.storage.filesystems import resolve, store_errors

COMPRESSED = (".gz", ".tgz")
MAX_TEXT_BYTES = 10_000_000


def read_webdataset(path: str, config: ShardsConfig, max_bytes: int) -> Iterator[Sample]:
    """The samples of a tar file, in order; it may be compressed.

    Args:
        path: path or URI.
        config: which members are image, labels and group.
        max_bytes: largest image.

    Raises:
        DataError: when the file is damaged or truncated, or numbers of labels have no names.
        StorageError: when the object store refuses.
    """
    filesystem, inner = resolve(path)
    compression = "gzip" if path.lower().endswith(COMPRESSED) else None
    with store_errors(path), filesystem.open_input_stream(inner, compression=compression) as stream:
        tail = _Tail(stream)
        try:
            # A name that is not UTF-8 stays distinct, and can be stored.
            form: dict[str, Any] = {"mode": "r|", "errors": "backslashreplace"}
            with tarfile.open(fileobj=cast(IO[bytes], tail), **form) as archive:
                for key, members in _grouped(archive, max_bytes):
                    yield _of_members(path, key, members, config, max_bytes)
                tail.check_end(archive.offset)
        except (tarfile.TarError, EOFError) as error:
            raise DataError(files.shown(path), "must be a complete tar file", str(error), REMEDY) from None


class _Tail:
    """A stream that keeps its last bytes, to see whether an archive is whole.

    tarfile does not: it takes one that is cut off between members as whole, and so one with more members
    after its end, as ``cat a.tar b.tar`` makes it.

    Args:
        stream: the archive.
    """

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream, self._kept, self._end = stream, b"", 0

    def read(self, count: int) -> bytes:
        """The next bytes; none where a compressed stream is cut off.

        Raises:
            tarfile.ReadError: when it is damaged.
        """
        try:
            data: bytes = self._stream.read(count)
        except OSError as error:
            if "zlib" in str(error):
                raise tarfile.ReadError(str(error)) from None
            if "Truncated compressed stream" not in str(error):
                raise
            data = b""
        self._kept, self._end = (self._kept + data)[-2 * tarfile.RECORDSIZE :], self._end + len(data)
        return data

    def check_end(self, offset: int) -> None:
        """Check that the archive ends at ``offset``, in one of the last blocks that were read.

        Raises:
            tarfile.ReadError: when its last block is missing, or anything but zeros follows.
        """
        rest = self._kept[max(0, offset - (self._end - len(self._kept))) :]
        if rest[: tarfile.BLOCKSIZE] != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it ends without its last block")
        while rest:
            if any(rest):
                raise tarfile.ReadError("more follows after its end, as where two archives were joined")
            rest = self.read(tarfile.RECORDSIZE)


Members = dict[str, bytes | int]
"""Content by ending; the size of a member that is too large stands for it."""
REPEATED = ""
"""In place of an ending: that of members which a sample holds twice, so that none of them counts."""


def _grouped(archive: tarfile.TarFile, max_bytes: int) -> Iterator[tuple[str, Members]]:
    """Key and members of each sample."""
    key, members = "", Members()
    for member in archive:
        folder, slash, last = member.name.removeprefix("./").rpartition("/")
        stem, dot, ending = last.partition(".")
        if not member.isfile() or is_hidden(last) or not dot:
            continue
        if (own := f"{folder}{slash}{stem}") != key:
            if members:
                yield key, members
            key, members = own, {}
        if (ending := ending.lower()) in members:
            members[REPEATED] = ending.encode()
        limit = max(max_bytes, MAX_TEXT_BYTES)
        stream = archive.extractfile(member) if member.size <= limit else None
        members[ending] = member.size if stream is None else stream.read()
    if members:
        yield key, members


def _of_members(
    path: str, key: str, members: Mapping[str, bytes | int], config: ShardsConfig, max_bytes: int
) -> Sample:
    try:
        if isinstance(repeated := members.get(REPEATED), bytes):
            reason = "two samples have one name, one after another"
            raise BadSampleError(f"it has several members .{repeated.decode()}: {reason}")
        member, image = _image_of(members, config, max_bytes)
        fields = _fields(members["json"]) if "json" in members else {}
        cell = _label_cell(members, fields, config)
        labels = label_names(f"{files.shown(path)}, {key}", cell, config.names)
        name = storable(cell_text(_field(fields, config.id)), "id") if config.id is not None else ""
        group = storable(cell_text(_field(fields, config.group)), "group") if config.group is not None else ""
    except BadSampleError as error:
        return Sample("", key, b"", (), problem=str(error))
    return Sample(name, key, image, labels, group, ending=image_ending(member))


def _image_of(members: Mapping[str, bytes | int], config: ShardsConfig, max_bytes: int) -> tuple[str, bytes]:
    """Ending and content of a sample's image."""
    if config.image is not None:
        endings = [ending for ending in members if ending == config.image.lower().lstrip(".")]
        wanted = f"member .{config.image.lstrip('.')}"
    else:
        endings = [ending for ending in members if ending.rpartition(".")[2] in IMAGE_ENDINGS]
        wanted = "image"
    held = ", ".join(sorted(members))
    if not endings:
        raise BadSampleError(f"it has no {wanted} (it holds {held})")
    if len(endings) > 1:
        raise BadSampleError(f"it has several images ({held}): set data.shards.image")
    return endings[0], fitting_image(members[endings[0]], max_bytes)


def _fields(content: bytes | int) -> Mapping[str, Any]:
    try:
        found = json.loads(b"" if isinstance(content, int) else content)
    except (ValueError, RecursionError):
        raise BadSampleError("its .json cannot be read") from None
    if not isinstance(found, dict):
        raise BadSampleError("its .json holds no object")
    return found


def _field(fields: Mapping[str, Any], name: str) -> Any:
    if name not in fields:
        held = ", ".join(sorted(fields)[:10]) or "nothing"
        raise BadSampleError(f"its .json has no field {name} (it holds {held})")
    return fields[name]


def _label_cell(
    members: Mapping[str, bytes | int], fields: Mapping[str, Any], config: ShardsConfig
) -> object:
    """The labels as a field of the JSON or the text of a member holds them."""
    ending = (config.labels or "cls").lower().lstrip(".")
    if config.labels is None and "json" in members:
        return _field(fields, "labels")
    if ending in members:
        content = members[ending]
        try:
            return (b"" if isinstance(content, int) else content).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise BadSampleError(f"its .{ending} is not UTF-8") from None
    if config.labels is not None and "json" in members:
        return _field(fields, config.labels)
    raise BadSampleError(f"it has no labels (it holds {', '.join(sorted(members))})")
