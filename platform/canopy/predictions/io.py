"""Files of predictions: Canopy's own Parquet, and the forms that other tools write.

========  ==========================================================================================
form      content
========  ==========================================================================================
Parquet   Canopy's: ``id: string``, ``probs: fixed_size_list<float32, K>``, optionally ``logits`` (alike) and
          ``targets: fixed_size_list<uint8, K>``; schema metadata ``labels`` (JSON list of the names) and
          ``config_hash``. Or a table of columns as in CSV.
CSV       a header ``id,<label>,…`` (``ids``, ``image_name`` and ``image`` are other names of ``id``), one
          column of probabilities per label; the targets, where known, in columns ``target:<label>``.
npz       ``id`` (or ``ids``, ``image_name``, ``image``), ``labels`` (or ``classes``), ``probs`` of shape (N,
          K), optionally ``logits`` and ``targets`` (or ``y``). A file of several members holds their
          probabilities as ``p_<member>``: select one as ``file.npz#member``.
========  ==========================================================================================

A path is local or a URI that pyarrow knows (``s3://``, ``gs://``, ``file://``), with or without a query.
Nothing is unpickled, and a file that declares more than :data:`~canopy.predictions.size_limit.MAX_BYTES` is
refused.
"""

from __future__ import annotations

import csv
import json
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from canopy.errors import InputError, PredictionsError
from canopy.predictions.npz_file import NpzFile, read_npz
from canopy.predictions.predictions import Predictions, align, concatenate
from canopy.predictions.size_limit import refuse_oversize
from canopy.predictions.tabular_files import LISTS, read_csv, read_parquet
from canopy.storage import files

__all__ = [
    "Predictions",
    "align",
    "concatenate",
    "names_in_npz",
    "read_members",
    "read_predictions",
    "split_member",
    "write_predictions",
]

SUFFIXES = (".parquet", ".csv", ".npz")
UNREADABLE = (
    pa.ArrowException,
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
)
"""Errors of the readers for files that are truncated, overwritten, encrypted or of another format."""


def write_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write the Parquet form; on local disks a reader sees the whole file or none.

    Raises:
        StorageError: when the disk or object store refuses.
    """
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
    """Read one member from any of the forms above, recognized by the suffix.

    Args:
        path: file or URI; ``file.npz#member`` for a member of an npz.

    Raises:
        PredictionsError: when the file is missing, damaged, too large, of an unknown form or breaks the
            form's rules; the file is named.
    """
    file, member = split_member(path)
    suffix = files.suffix(file)
    if suffix not in SUFFIXES:
        before = file.rpartition("#")[0]
        if before and files.suffix(before) in SUFFIXES:
            must, remedy = "must not name a member after #, which only .npz files have", "Remove it."
            raise PredictionsError(f"{path}", must, file.rpartition("#")[2], remedy)
        must, remedy = "must be .parquet, .csv or .npz", "Save it in one of these forms."
        raise PredictionsError(f"The predictions file {file}", must, suffix or "no suffix", remedy)
    data = _read(file)
    try:
        match suffix:
            case ".parquet":
                return read_parquet(data)
            case ".csv":
                return read_csv(data)
            case _:
                return read_npz(data, member)
    except InputError as error:
        raise PredictionsError(f"{path}: {error.thing}", error.constraint, error.got, error.remedy) from error
    except UNREADABLE as error:
        raise _unreadable(str(path), suffix, error) from error


def read_members(path: str | Path) -> dict[str, Predictions]:
    """All members of a file: those of an npz with ``p_<member>`` arrays, else one, named like the file.

    Raises:
        PredictionsError: when the file cannot be read (:func:`read_predictions`).
    """
    stem = Path(files.parent(str(path))[1]).stem
    if files.suffix(str(path)) != ".npz":
        return {stem: read_predictions(path)}
    return {name or stem: read_predictions(f"{path}#{name}" if name else path) for name in names_in_npz(path)}


def names_in_npz(path: str | Path) -> list[str]:
    """Names of the members in an npz (``p_<member>`` arrays); one empty name where it holds only one.

    Raises:
        PredictionsError: when the file is missing or no npz.
    """
    data = _read(str(path))
    try:
        return NpzFile(data).members()
    except InputError as error:
        raise PredictionsError(f"{path}: {error.thing}", error.constraint, error.got, error.remedy) from error
    except UNREADABLE as error:
        raise _unreadable(str(path), ".npz", error) from error


def split_member(path: str | Path) -> tuple[str, str]:
    """File and member of ``file.npz#member``; the whole path and an empty member for everything else.

    Only npz files have members: ``#`` is a character like any other in the rest of a path.
    """
    file, mark, member = str(path).rpartition("#")
    if mark and "/" not in member and files.suffix(file) == ".npz":
        return file, member
    return str(path), ""


def _read(path: str) -> bytes:
    """The content of a file, its size checked first."""
    try:
        refuse_oversize(f"The predictions file {path}", _size(path))
        return files.read_bytes(path)
    except (FileNotFoundError, IsADirectoryError) as error:
        thing = f"The predictions file {path}"
        raise PredictionsError(thing, "must exist", "no such file", "Check the path.") from error
    except PermissionError as error:
        thing = f"The predictions file {path}"
        raise PredictionsError(thing, "must be readable", str(error), "Check its permissions.") from error


def _size(path: str) -> int:
    """Bytes of a file on the local disk; 0 for a URI, whose size the listing of its directory would cost."""
    return 0 if files.is_uri(path) else Path(files.absolute(path)).stat().st_size


def _unreadable(path: str, suffix: str, error: Exception) -> PredictionsError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    remedy = "Write it again; docs/ensemble.md describes the forms."
    return PredictionsError(
        f"The predictions file {path}", f"must be a readable {suffix} file", reason, remedy
    )
