"""Predictions in tables: CSV and Parquet with a column per label, and Parquet with a list per row.

Sizes are checked before they are allocated: the rows and values that a Parquet file declares, and the
cells that a CSV has.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from canopy.errors import PredictionsError
from canopy.labels import LabelSet
from canopy.predictions.predictions import Predictions
from canopy.predictions.size_limit import MAX_COLUMNS, refuse_oversize

ID_NAMES = ("id", "ids", "image_name", "image")
TARGET_PREFIX = "target:"
LISTS = ("probs", "logits", "targets")
"""Columns of the list form, in the order of :class:`Predictions`' arrays."""
MIN_BLOCK = 2**20
"""Minimum number of CSV bytes parsed at a time."""
ID_BATCH = 65536
"""Number of ids that are decoded at a time."""


def read_parquet(data: bytes) -> Predictions:
    """The predictions in a Parquet file of either form.

    Raises:
        PredictionsError: when columns or values break the form, or the file declares too much.
        pyarrow.ArrowException: when it is no Parquet file.
    """
    file = pa.parquet.ParquetFile(pa.BufferReader(data))
    schema, rows = file.schema_arrow, file.metadata.num_rows
    id_name = _id_name(schema.names)
    unpacked = sum(
        file.metadata.row_group(group).column(column).total_uncompressed_size
        for group in range(file.metadata.num_row_groups)
        for column in range(file.metadata.num_columns)
    )
    refuse_oversize("The Parquet file", max(unpacked, rows * (len(schema.names) - 1) * 4))
    if "probs" not in schema.names or not _is_list(schema.field("probs").type):
        labels, targets = _label_columns(schema.names, id_name)
        ids = _parquet_ids(file, id_name)
        return _from_columns(ids, file.read(columns=[*labels, *targets]), labels, targets)
    label_set = _labels_in(schema.metadata or {})
    held = [name for name in LISTS if name in schema.names]
    for name in held:
        _check_list(file, name, rows * len(label_set), len(label_set))
    refuse_oversize("The Parquet file", rows * len(label_set) * 4 * len(held))
    ids = _parquet_ids(file, id_name)
    table = file.read(columns=held)
    lists = {name: _list_column(table, name, len(label_set)) for name in held}
    config_hash = (schema.metadata or {}).get(b"config_hash")
    return Predictions(
        ids=ids,
        probs_NK=lists["probs"],
        labels=label_set,
        logits_NK=lists.get("logits"),
        targets_NK=lists.get("targets"),
        config_hash=None if config_hash is None else config_hash.decode(),
    )


def read_csv(data: bytes) -> Predictions:
    """The predictions in a CSV file.

    Raises:
        PredictionsError: when columns or values break the form, or there are too many.
        pyarrow.ArrowException: when it is no CSV.
        csv.Error: when its header is no CSV.
    """
    _refuse_other_encodings(data)
    header = next(csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")), None)
    if not header:
        must, remedy = "must begin with a header", "Write the header id,<label>,… first."
        raise PredictionsError("The CSV file", must, "nothing", remedy)
    id_name = _id_name(header)
    labels, targets = _label_columns(header, id_name)
    refuse_oversize("The CSV file", (data.count(b"\n") + data.count(b"\r")) * len(header) * 8)
    options = pa.csv.ConvertOptions(column_types={id_name: pa.string()})
    block = max(MIN_BLOCK, 4 * data.find(b"\n"))  # pyarrow refuses a row that is longer than a block
    table = pa.csv.read_csv(
        pa.BufferReader(data), read_options=pa.csv.ReadOptions(block_size=block), convert_options=options
    )
    if not table.num_rows:
        remedy = "Write one row per image below it."
        raise PredictionsError("The CSV file", "must hold a row", "a header only", remedy)
    if table.column_names != header:
        got, remedy = f"{len(table.column_names)} columns", "Write the header as one line of distinct names."
        raise PredictionsError("The CSV file", f"must have the header's {len(header)} columns", got, remedy)
    return _from_columns(_ids_in(table.column(header.index(id_name)), id_name), table, labels, targets)


def _refuse_other_encodings(data: bytes) -> None:
    """Refuse a CSV that is not UTF-8, naming the first byte at fault; a part is decoded at a time."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), MIN_BLOCK):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(data[start : start + MIN_BLOCK], final=start + MIN_BLOCK >= len(data))
        except UnicodeDecodeError as error:
            got, remedy = f"byte {start - pending + error.start} is not", "Save the table as UTF-8."
            raise PredictionsError("The CSV file", "must be UTF-8 text", got, remedy) from None


def _id_name(names: Sequence[str]) -> str:
    """The only id column.

    Raises:
        PredictionsError: when two columns have the same name, or there is not exactly one id column.
    """
    if len(names) > MAX_COLUMNS:
        remedy = "Write one row per image and one column per label."
        raise PredictionsError("The table", f"must have at most {MAX_COLUMNS:,} columns", len(names), remedy)
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        remedy = "Remove or rename one of them."
        raise PredictionsError("The columns", "must have distinct names", f"{twice!r} twice", remedy)
    found = [name for name in names if name in ID_NAMES]
    if not found:
        got = ", ".join(names[:5])
        raise PredictionsError("The id column", f"must be one of {', '.join(ID_NAMES)}", got, "Rename it.")
    if len(found) > 1:
        must = f"must hold one of {', '.join(ID_NAMES)} only: these names are kept for the id"
        remedy = (
            "Remove one of the two id columns; rename it if it is a label (npz and Parquet lists take any)."
        )
        raise PredictionsError("The columns", must, " and ".join(map(repr, found)), remedy)
    return found[0]


def _label_columns(names: Sequence[str], id_name: str) -> tuple[list[str], list[str]]:
    """The label columns, and the target column of each; no target columns where there are none.

    Raises:
        PredictionsError: when there are targets for some labels only, or for no label.
    """
    labels = [name for name in names if name != id_name and not name.startswith(TARGET_PREFIX)]
    targets = [TARGET_PREFIX + label for label in labels]
    given = {name for name in names if name.startswith(TARGET_PREFIX)}
    if not labels:
        got, remedy = ", ".join(names[:5]), "Add one column of probabilities per label."
        raise PredictionsError("The columns", "must hold a label in addition to the id", got, remedy)
    stray = sorted(given - set(targets))
    if stray:
        remedy = f"Add the column of probabilities, or drop {stray[0]}."
        must = "must belong to labels that have a column of probabilities"
        raise PredictionsError("The target columns", must, repr(stray[0]), remedy)
    missing = [target for target in targets if target not in given]
    if given and missing:
        must, remedy = "must be given for every label or for none", f"Add {missing[0]}."
        raise PredictionsError("The target columns", must, f"no {missing[0]!r}", remedy)
    return labels, targets if given else []


def _from_columns(
    ids: NDArray[np.str_], table: pa.Table, labels: list[str], targets: list[str]
) -> Predictions:
    """The predictions in a table with a column per label."""
    columns = dict(zip(table.column_names, table.columns, strict=True))
    return Predictions(
        ids=ids,
        probs_NK=_stack(columns, labels),
        labels=LabelSet(tuple(labels)),
        targets_NK=_stack(columns, targets) if targets else None,  # type: ignore[arg-type]
    )


def _stack(columns: dict[str, pa.ChunkedArray], names: list[str]) -> NDArray[np.float32]:
    """Columns of numbers as an array (N, K)."""
    values_KN = []
    for name in names:
        kind = columns[name].type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
            must, remedy = "must hold numbers", "Only the id column may hold text."
            got = "empty cells only" if pa.types.is_null(kind) else str(kind)
            raise PredictionsError(f"Column {name}", must, got, remedy)
        values_KN.append(columns[name].cast(pa.float32()).to_numpy())
    return np.stack(values_KN, axis=1)


def _parquet_ids(file: pa.parquet.ParquetFile, name: str) -> NDArray[np.str_]:
    """The ids, decoded batch by batch: a column above the memory limit is refused before it is complete."""
    rows, parts = file.metadata.num_rows, []
    for batch in file.iter_batches(ID_BATCH, columns=[name]):
        part = _ids_in(pa.chunked_array([batch.column(0)]), name)
        refuse_oversize(f"Column {name}", rows * part.dtype.itemsize)  # every id takes the longest id's width
        parts.append(part)
    return np.concatenate(parts) if parts else np.empty(0, np.str_)


def _ids_in(column: pa.ChunkedArray, name: str) -> NDArray[np.str_]:
    texts = column.cast(pa.string())
    if texts.null_count:
        got, remedy = f"{texts.null_count} empty", "Fill them."
        raise PredictionsError(f"Column {name}", "must name every row", got, remedy)
    return np.asarray(texts.to_pylist(), dtype=np.str_)


def _labels_in(metadata: dict[bytes, bytes]) -> LabelSet:
    """The label names in the schema metadata of the list form."""
    remedy = "Write the names there as a JSON list."
    if b"labels" not in metadata:
        got = sorted(key.decode(errors="replace") for key in metadata)
        raise PredictionsError("The schema metadata", "must hold labels", got, remedy)
    text = metadata[b"labels"].decode(errors="replace")
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        must = "must be a JSON list of label names"
        raise PredictionsError("The labels in the schema metadata", must, text[:80], remedy)
    return LabelSet(tuple(names))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _check_list(file: pa.parquet.ParquetFile, name: str, values: int, width: int) -> None:
    """Refuse a list column that does not declare ``width`` numbers in every row."""
    kind = file.schema_arrow.field(name).type
    must, remedy = (
        f"must hold {width} numbers in every row",
        "Write fixed_size_list columns, one value per label.",
    )
    if not _is_list(kind) or not (
        pa.types.is_floating(kind.value_type)
        or pa.types.is_integer(kind.value_type)
        or pa.types.is_boolean(kind.value_type)
    ):
        raise PredictionsError(f"Column {name}", must, str(kind), remedy)
    declared = 0
    for group in range(file.metadata.num_row_groups):
        row_group = file.metadata.row_group(group)
        chunks = (row_group.column(column) for column in range(row_group.num_columns))
        declared += sum(chunk.num_values for chunk in chunks if chunk.path_in_schema.split(".")[0] == name)
    if declared != values:
        got = f"{declared} values in {file.metadata.num_rows} rows"
        raise PredictionsError(f"Column {name}", must, got, remedy)


def _list_column(table: pa.Table, name: str, width: int) -> NDArray[Any]:
    """A list column as an array (N, width)."""
    column = table.column(name).combine_chunks()
    lengths = pa.compute.list_value_length(column)
    even = not column.null_count and pa.compute.all(pa.compute.equal(lengths, width)).as_py() in {True, None}
    if not even:
        got, remedy = "rows of other lengths", "Write fixed_size_list columns, one value per label."
        raise PredictionsError(f"Column {name}", f"must hold {width} numbers in every row", got, remedy)
    flat = column.flatten().to_numpy(zero_copy_only=False)
    values_NK: NDArray[Any] = flat.reshape(len(table), width)
    return values_NK
