"""The samples of a shard: a WebDataset's tar file, or a Parquet file as the Hugging Face hub holds them.

WebDataset: consecutive members with one name up to its first dot are a sample; what follows the dot says
what a member is (``000123.jpg``, ``000123.json``). Hugging Face: a column of images (a struct of bytes and
path, or bytes), a column of labels (names or ClassLabel numbers, one or a list).
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from canopy.config import ShardsConfig
from canopy.data.label_cells import cell_text, parse_labels
from canopy.data.listing import is_hidden
from canopy.errors import DataError
from canopy.storage import files
from canopy.storage.filesystems import resolve, store_errors

IMAGE_ENDINGS = frozenset(["jpg", "jpeg", "jfif", "png", "tif", "tiff", "webp", "bmp", "gif", "jp2", "avif"])
COMPRESSED = (".gz", ".tgz")
ROWS_AT_ONCE = 32
"""Rows of a Parquet file in memory."""
MAX_TEXT_BYTES = 10_000_000
REMEDY = "Restore the shard, or download it again."


class Sample(NamedTuple):
    """One sample.

    Attributes:
        id: its unique name, or empty for that of its place.
        place: its key or row in the shard.
        image: the image file; empty with a problem.
        labels: names of its labels.
        group: name of its group, or empty.
        problem: why it cannot be used; empty where it can.
        ending: ``.jpg`` and so on, as the shard names the image; empty where it does not.
    """

    id: str
    place: str
    image: bytes
    labels: tuple[str, ...]
    group: str = ""
    problem: str = ""
    ending: str = ""


class BadSampleError(Exception):
    """A sample that cannot be used; its text is the reason."""


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
            with tarfile.open(fileobj=cast(IO[bytes], tail), mode="r|") as archive:
                for key, members in _grouped(archive, max_bytes):
                    yield _of_members(path, key, members, config, max_bytes)
                if tail.block(archive.offset) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("it ends without its last block")
        except (tarfile.TarError, EOFError) as error:
            raise DataError(files.shown(path), "must be a complete tar file", str(error), REMEDY) from None


class _Tail:
    """A stream that keeps its last bytes: tarfile takes an archive that is cut off between members as whole.

    Args:
        stream: the archive.
    """

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream, self._kept, self._end = stream, b"", 0

    def read(self, count: int) -> bytes:
        """The next bytes; none where a compressed stream is cut off."""
        try:
            data: bytes = self._stream.read(count)
        except OSError as error:
            if "Truncated compressed stream" not in str(error):
                raise
            data = b""
        self._kept, self._end = (self._kept + data)[-2 * tarfile.RECORDSIZE :], self._end + len(data)
        return data

    def block(self, offset: int) -> bytes:
        """The block at ``offset``, one of the last; shorter where the stream ends in it."""
        start = offset - (self._end - len(self._kept))
        return self._kept[start : start + tarfile.BLOCKSIZE]


def _grouped(archive: tarfile.TarFile, max_bytes: int) -> Iterator[tuple[str, dict[str, bytes | int]]]:
    """Key and members of each sample; the size of a member that is too large stands for its content."""
    key, members = "", dict[str, bytes | int]()
    for member in archive:
        folder, slash, last = member.name.removeprefix("./").rpartition("/")
        stem, dot, ending = last.partition(".")
        if not member.isfile() or is_hidden(last) or not dot:
            continue
        if (own := f"{folder}{slash}{stem}") != key:
            if members:
                yield key, members
            key, members = own, {}
        limit = max(max_bytes, MAX_TEXT_BYTES)
        stream = archive.extractfile(member) if member.size <= limit else None
        members[ending.lower()] = member.size if stream is None else stream.read()
    if members:
        yield key, members


def _of_members(
    path: str, key: str, members: Mapping[str, bytes | int], config: ShardsConfig, max_bytes: int
) -> Sample:
    try:
        member, image = _image_of(members, config, max_bytes)
        fields = _fields(members["json"]) if "json" in members else {}
        labels = _labels(f"{files.shown(path)}, {key}", _label_cell(members, fields, config), config.names)
        name = cell_text(_field(fields, config.id)) if config.id is not None else ""
        group = cell_text(_field(fields, config.group)) if config.group is not None else ""
    except BadSampleError as error:
        return Sample("", key, b"", (), problem=str(error))
    return Sample(name, key, image, labels, group, ending=_ending(member))


def _ending(name: str) -> str:
    """The ending of an image's name, for the name of its file; decoding goes by the content."""
    last = name.rpartition(".")[2].lower()
    return f".{last}" if last in IMAGE_ENDINGS else ""


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
    return endings[0], _fitting(members[endings[0]], max_bytes)


def _fitting(content: bytes | int, max_bytes: int) -> bytes:
    size = content if isinstance(content, int) else len(content)
    if isinstance(content, int) or size > max_bytes:
        limit = f"data.max_image_mb ({max_bytes / 1e6:,.0f})"
        raise BadSampleError(f"its image has {size / 1e6:,.0f} MB, more than {limit}")
    if not content:
        raise BadSampleError("its image is empty")
    return content


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


def _labels(where: str, cell: object, names: Sequence[str]) -> tuple[str, ...]:
    """Names of labels from a list or a text of names or numbers.

    Raises:
        DataError: when there are numbers and no names.
        BadSampleError: when a number has no name, or the text is no list.
    """
    if isinstance(cell, str):
        text = cell.strip()
        # A text is a list, or names between commas or lines; numbers may have blanks between them.
        numbers = re.fullmatch(r"[\[(]?\s*-?\d+(?:[\s,]+-?\d+)*\s*[\])]?", text)
        parts: Sequence[object] = re.findall(r"-?\d+", text) if numbers else ()
        if not numbers:
            try:
                parts = parse_labels(where, re.sub(r"[\r\n]+", ",", text) if text[:1] != "[" else text, ",")
            except DataError as error:
                raise BadSampleError(f"its labels cannot be read: {error.got}") from None
    elif isinstance(cell, list | tuple):
        parts = cell
    else:
        parts = () if cell is None else (cell,)
    return tuple(dict.fromkeys(_name(where, part, names) for part in parts if part is not None))


def _name(where: str, label: object, names: Sequence[str]) -> str:
    number = label if isinstance(label, int) and not isinstance(label, bool) else None
    if number is None and isinstance(label, str) and re.fullmatch(r"-?\d+", label) and label not in names:
        number = int(label)
    if number is None:
        if not isinstance(label, str) or not label.strip():
            raise BadSampleError(f"{label!r} is no label: names or numbers are needed")
        return label.strip()
    if not names:
        need, remedy = "must have names for numbers of labels", "Set data.shards.names to the list of names."
        raise DataError(where, need, f"the number {number}", remedy)
    if not 0 <= number < len(names):
        raise BadSampleError(f"its label {number} is none of the {len(names)} of data.shards.names")
    return names[number]


def read_parquet(path: str, config: ShardsConfig, max_bytes: int) -> Iterator[Sample]:
    """The samples of a Parquet file, in order; errors as for :func:`read_webdataset`.

    Args:
        path: path or URI.
        config: which columns are image, labels, id and group.
        max_bytes: largest image.
    """
    filesystem, inner = resolve(path)
    with store_errors(path), filesystem.open_input_file(inner) as stream:
        try:
            table = pq.ParquetFile(stream)
            columns, names = _columns(path, table.schema_arrow, config)
            row = 0
            for batch in table.iter_batches(ROWS_AT_ONCE, columns=list(columns.values())):
                for found in batch.to_pylist():
                    row += 1
                    cells = {part: found[name] for part, name in columns.items()}
                    yield _of_row(path, row, cells, names, max_bytes)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, EOFError) as error:
            text = str(error).splitlines()[0]
            raise DataError(files.shown(path), "must be a complete Parquet file", text, REMEDY) from None


def _columns(path: str, schema: pa.Schema, config: ShardsConfig) -> tuple[dict[str, str], Sequence[str]]:
    """Column by part of a sample, and names of numbers.

    Raises:
        DataError: when a column is missing, or holds no images.
    """
    wanted = {"image": config.image or "image", "labels": config.labels or "labels"}
    wanted |= {part: name for part in ("id", "group") if (name := getattr(config, part)) is not None}
    for part, name in wanted.items():
        if name not in schema.names:
            thing, need = files.shown(path), f"must have the column {name} (data.shards.{part})"
            remedy = f"Give --data.shards.{part} COLUMN."
            raise DataError(thing, need, ", ".join(schema.names) or "no column", remedy)
    kind = schema.field(wanted["image"]).type
    in_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if not (in_struct or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        need = "must hold image files: bytes, or a struct with bytes"
        raise DataError(f"{files.shown(path)}: {wanted['image']}", need, str(kind), "Name another column.")
    return wanted, config.names or _class_names(schema, wanted["labels"])


def _class_names(schema: pa.Schema, column: str) -> Sequence[str]:
    """Names of a column's ClassLabel, from the features that the hub's files describe in their metadata."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        feature = described["info"]["features"][column]
    except (ValueError, KeyError, TypeError):
        return ()
    while True:
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        elif isinstance(feature, dict) and "feature" in feature:
            feature = feature["feature"]
        else:
            break
    found = feature.get("names") if isinstance(feature, dict) else None
    return [str(name) for name in found] if isinstance(found, list) else ()


def _of_row(path: str, row: int, cells: Mapping[str, Any], names: Sequence[str], max_bytes: int) -> Sample:
    place, image = f"row {row}", cells["image"]
    try:
        content = image.get("bytes") if isinstance(image, dict) else image
        if content is None:
            has = isinstance(image, dict) and image.get("path")
            raise BadSampleError(f"its image is a path without bytes ({has})" if has else "it has no image")
        labels = _labels(f"{files.shown(path)}, {place}", cells["labels"], names)
        return Sample(
            cell_text(cells.get("id")),
            place,
            _fitting(content, max_bytes),
            labels,
            cell_text(cells.get("group")),
            ending=_ending(cell_text(image.get("path"))) if isinstance(image, dict) else "",
        )
    except BadSampleError as error:
        return Sample(cell_text(cells.get("id")), place, b"", (), problem=str(error))
