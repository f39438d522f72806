"""The samples of a Parquet file as the Hugging Face hub holds them.

A column of images (a struct of bytes and path, or bytes), and a column of labels (names or ClassLabel
numbers, one or a list).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from canopy.config import ShardsConfig
from canopy.data.label_cells import cell_text
from canopy.data.shard_samples import (
    REMEDY,
    BadSampleError,
    Sample,
    fitting_image,
    image_ending,
    label_names,
)
from canopy.errors import DataError
from canopy.storage import files
from canopy.storage.filesystems import resolve, store_errors

ROWS_AT_ONCE = 32
"""Rows of a Parquet file in memory."""
DAMAGE = re.compile("thrift|corrupt|decompress|inflate|deserializ|page header|unexpected end of stream", re.I)
"""In the text of an ``OSError``: pyarrow raises it for the damage of a file, too."""


def read_parquet(path: str, config: ShardsConfig, max_bytes: int) -> Iterator[Sample]:
    """The samples of a Parquet file, in order.

    Args:
        path: path or URI.
        config: which columns are image, labels, id and group.
        max_bytes: largest image.

    Raises:
        DataError: when the file is damaged, a column is missing, or numbers of labels have no names.
        StorageError: when the object store refuses.
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
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, EOFError, OSError) as error:
            if isinstance(error, OSError) and not DAMAGE.search(str(error)):
                raise
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
    content = kind.field("bytes").type if in_struct else kind
    if not (pa.types.is_binary(content) or pa.types.is_large_binary(content) or pa.types.is_null(content)):
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
        labels = label_names(f"{files.shown(path)}, {place}", cells["labels"], names)
        return Sample(
            cell_text(cells.get("id")),
            place,
            fitting_image(content, max_bytes),
            labels,
            cell_text(cells.get("group")),
            ending=image_ending(cell_text(image.get("path"))) if isinstance(image, dict) else "",
        )
    except BadSampleError as error:
        return Sample(cell_text(cells.get("id")), place, b"", (), problem=str(error))
