"""Files of predictions: our own Parquet, and the forms that others bring.

========  ==========================================================================================
form      accepted
========  ==========================================================================================
Parquet   ours: ``id: string``, ``probs: fixed_size_list<float32, K>``, optionally ``logits`` (alike) and
          ``targets: fixed_size_list<uint8, K>``; schema metadata ``labels`` (JSON list of the names) and
          ``config_hash``. Or a table of columns as in CSV.
CSV       a header ``id,<label>,…`` (``image_name`` or ``image`` serve as ``id`` too), one column of
          probabilities per label; the truth, where known, in columns ``target:<label>``.
npz       ``id`` (or ``ids``, ``image_name``), ``labels`` (or ``classes``), ``probs`` of shape (N, K),
          optionally ``logits`` and ``targets`` (or ``y``). A file with several members holds their
          probabilities as ``p_<member>``: name one as ``file.npz#member``.
========  ==========================================================================================

A path is local or a URI that pyarrow knows (``s3://``, ``gs://``, ``file://``). Nothing is ever unpickled.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from canopy.errors import PredictionsError
from canopy.labels import LabelSet
from canopy.predictions.predictions import Predictions, align, concatenate
from canopy.storage import files

__all__ = ["Predictions", "align", "concatenate", "read_members", "read_predictions", "write_predictions"]

ID_NAMES = ("id", "ids", "image_name", "image")
LABEL_NAMES = ("labels", "classes")
TARGET_NAMES = ("targets", "y")
TARGET_PREFIX = "target:"
MEMBER_PREFIX = "p_"
LISTS = ("probs", "logits", "targets")
BROKEN = (pa.ArrowException, OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
"""What readers raise of files that are cut off, overwritten or something else."""


def write_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write the Parquet form; on local disks a reader sees the whole file or none."""
    columns: dict[str, pa.Array] = {"id": pa.array(predictions.ids.tolist(), pa.string())}
    arrays = (predictions.probs_NK, predictions.logits_NK, predictions.targets_NK)
    for name, values_NK in zip(LISTS, arrays, strict=True):
        if values_NK is not None:
            flat = pa.array(np.ascontiguousarray(values_NK).ravel())
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, len(predictions.labels))
    metadata = {b"labels": json.dumps(predictions.labels.names).encode()}
    if predictions.config_hash is not None:
        metadata[b"config_hash"] = predictions.config_hash.encode()
    files.write_table(str(path), pa.table(columns).replace_schema_metadata(metadata))


def read_predictions(path: str | Path) -> Predictions:
    """Read one member from any of the forms in the module's docstring, told apart by the suffix.

    Raises:
        PredictionsError: when the file is missing, of no known form or breaks the contract (it is named).
    """
    place, _, member = str(path).partition("#")
    suffix = Path(place).suffix.lower()
    readers = {".parquet": _parquet, ".csv": _csv, ".npz": _npz}
    if suffix not in readers:
        problem, remedy = "must be .parquet, .csv or .npz", "Save it in one of these forms."
        raise PredictionsError(f"The predictions file {place}", problem, suffix or "no suffix", remedy)
    if member and suffix != ".npz":
        raise PredictionsError(f"{path}", "names a member after #, which only .npz has", suffix, "Drop it.")
    data = _bytes(place)
    try:
        return readers[suffix](data, member)
    except PredictionsError as error:
        raise PredictionsError(f"{path}: {error.thing}", error.constraint, error.got, error.remedy) from error
    except BROKEN as error:
        thing, remedy = f"The predictions file {path}", "Write it again; docs/ensemble.md says how."
        raise PredictionsError(thing, f"must be a readable {suffix} file", str(error), remedy) from error


def read_members(path: str | Path) -> dict[str, Predictions]:
    """All members of a file: those of an npz with ``p_<member>`` arrays, else one, by the file's name."""
    if Path(str(path)).suffix.lower() == ".npz":
        return {
            name or Path(str(path)).stem: read_predictions(f"{path}#{name}" if name else path)
            for name in names_in_npz(path)
        }
    return {Path(str(path)).stem: read_predictions(path)}


def names_in_npz(path: str | Path) -> list[str]:
    """Names of the members in an npz (``p_<member>`` arrays); one empty name where it holds only one.

    Raises:
        PredictionsError: when the file is missing or no npz.
    """
    try:
        arrays = np.load(io.BytesIO(_bytes(path)), allow_pickle=False)
        held = [name for name in getattr(arrays, "files", ()) if name.startswith(MEMBER_PREFIX)]
    except BROKEN as error:
        if isinstance(error, PredictionsError):
            raise
        must = "must be a readable .npz file"
        raise PredictionsError(f"{path}", must, str(error), "Write it with numpy.savez.") from error
    return [name.removeprefix(MEMBER_PREFIX) for name in held] or [""]


def _bytes(path: str | Path) -> bytes:
    try:
        return files.read_bytes(str(path))
    except (FileNotFoundError, IsADirectoryError) as error:
        remedy = "Check the path."
        raise PredictionsError(
            f"The predictions file {path}", "must exist", "no such file", remedy
        ) from error


def _parquet(data: bytes, _member: str) -> Predictions:
    table = pa.parquet.read_table(pa.BufferReader(data))
    if "probs" not in table.column_names:
        return _columns(table)
    metadata = table.schema.metadata or {}
    if b"labels" not in metadata:
        remedy = "Write the names there as a JSON list."
        raise PredictionsError("The schema metadata", "must hold labels", sorted(metadata), remedy)
    labels = LabelSet(tuple(json.loads(metadata[b"labels"])))
    lists = {name: _list_column(table, name, len(labels)) for name in LISTS if name in table.column_names}
    config_hash = metadata.get(b"config_hash")
    return Predictions(
        ids=_ids_of(table),
        probs_NK=lists["probs"],
        labels=labels,
        logits_NK=lists.get("logits"),
        targets_NK=lists.get("targets"),
        config_hash=None if config_hash is None else config_hash.decode(),
    )


def _list_column(table: pa.Table, name: str, width: int) -> NDArray[Any]:
    column = table.column(name).combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    if column.null_count or flat.size != len(table) * width:
        got = f"{flat.size} values in {len(table)} rows, {column.null_count} rows without any"
        remedy = "Write fixed_size_list columns, one value per label."
        raise PredictionsError(f"Column {name}", f"must hold {width} values in every row", got, remedy)
    values_NK: NDArray[Any] = flat.reshape(len(table), width)
    return values_NK


def _csv(data: bytes, _member: str) -> Predictions:
    header = pa.csv.open_csv(pa.BufferReader(data)).schema.names
    ids = {name: pa.string() for name in header if name in ID_NAMES}
    return _columns(
        pa.csv.read_csv(pa.BufferReader(data), convert_options=pa.csv.ConvertOptions(column_types=ids))
    )


def _columns(table: pa.Table) -> Predictions:
    ids = _ids_of(table)
    names = [
        name for name in table.column_names if name not in ID_NAMES and not name.startswith(TARGET_PREFIX)
    ]
    labels = LabelSet(tuple(names))
    present = [name for name in names if TARGET_PREFIX + name in table.column_names]
    if present and len(present) < len(names):
        missing = next(name for name in names if name not in present)
        problem, remedy = "must be given for every label or for none", f"Add {TARGET_PREFIX}{missing}."
        raise PredictionsError("The target columns", problem, f"none for {missing!r}", remedy)
    return Predictions(
        ids=ids,
        probs_NK=_stack(table, names),
        labels=labels,
        targets_NK=_stack(table, [TARGET_PREFIX + name for name in names]) if present else None,  # type: ignore[arg-type]
    )


def _stack(table: pa.Table, names: list[str]) -> NDArray[np.float32]:
    columns_KN = []
    for name in names:
        kind = table.column(name).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
            problem, remedy = "must hold numbers", "Only the id column may hold text."
            raise PredictionsError(f"Column {name}", problem, str(kind), remedy)
        columns_KN.append(table.column(name).cast(pa.float32()).to_numpy())
    return np.stack(columns_KN, axis=1)


def _ids_of(table: pa.Table) -> NDArray[np.str_]:
    name = next((name for name in ID_NAMES if name in table.column_names), None)
    if name is None:
        got = ", ".join(table.column_names[:5])
        raise PredictionsError("The id column", f"must be one of {', '.join(ID_NAMES)}", got, "Rename it.")
    column = table.column(name).cast(pa.string())
    if column.null_count:
        raise PredictionsError(
            f"Column {name}", "must name every row", f"{column.null_count} empty", "Fill them."
        )
    return np.asarray(column.to_pylist(), dtype=np.str_)


def _npz(data: bytes, member: str) -> Predictions:
    arrays = np.load(io.BytesIO(data), allow_pickle=False)
    if not hasattr(arrays, "files"):
        raise PredictionsError(
            "The file", "must be an npz archive", "a single array", "Write it with numpy.savez."
        )

    def first(names: tuple[str, ...]) -> NDArray[Any] | None:
        return next((arrays[name] for name in names if name in arrays.files), None)

    ids, names = first(ID_NAMES), first(LABEL_NAMES)
    probs_NK = first((MEMBER_PREFIX + member, member) if member else ("probs",))
    for what, array in (("id", ids), ("labels", names), (f"p_{member}" if member else "probs", probs_NK)):
        if array is None:
            got = ", ".join(arrays.files)
            raise PredictionsError(
                "The npz file", f"must hold {what}", got, "Name one member as file.npz#member."
            )
    assert ids is not None
    assert names is not None
    assert probs_NK is not None
    return Predictions(
        ids=ids.astype(np.str_),
        probs_NK=probs_NK,
        labels=LabelSet(tuple(str(name) for name in names)),
        logits_NK=None if member else first(("logits",)),
        targets_NK=first(TARGET_NAMES),
    )
