"""Columns of predictions, and the file of them: Parquet or CSV, one row per image.

Columns: ``id``; ``prob:LABEL``, the probability of each label (float32); ``LABEL``, the decision (bool in
Parquet, 0 or 1 in CSV). On request also ``member:MEMBER:LABEL``, a member's own probability of the label
(float32), and ``embedding:MEMBER``, its features (a list of float32; Parquet only). Where the name of a label
equals that of another column (``id``, or ``prob:road``, the probability of ``road``), all decision columns
are named ``decision:LABEL`` instead, so that no two columns collide.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from canopy.errors import ConfigError
from canopy.predictions.safe_csv import safe_cell
from canopy.storage import files

SUFFIXES = (".parquet", ".csv")


def check_output(path: str) -> None:
    """Refuse an output that cannot be written, by writing an empty file to the same place.

    Args:
        path: a file, ``.parquet`` or ``.csv``, or a directory.

    Raises:
        ConfigError: when the suffix is unknown, the place is not writable, or something of the other kind is
            there.
        StorageError: when the object store refuses.
    """
    suffix = files.suffix(path)
    if suffix in SUFFIXES:
        directory, name = files.parent(path)
        _check_place(path, directory or ".", f"{uuid.uuid4().hex[:8]}{name[8:]}")  # as long as the name
        return
    if suffix and not files.is_dir(path):
        need = f"must be a directory, or a file that ends in {' or '.join(SUFFIXES)}"
        remedy = "Give --out FILE.parquet, --out FILE.csv or --out DIR/."
        raise ConfigError("--out", need, files.shown(path), remedy)
    _check_place(path, path, uuid.uuid4().hex[:8])


def _check_place(path: str, directory: str, name: str) -> None:
    """Refuse ``path`` unless a file ``name`` can be written to ``directory``; leaves nothing behind."""
    probe, is_file = files.join(directory, name), path != directory
    try:
        if is_file and files.is_dir(path):
            got = f"the directory {files.shown(path)}"
            raise ConfigError("--out", "must be a file", got, "Add a file name.")
        was_there = files.exists(directory)
        files.write_bytes(probe, b"")
        files.delete(probe)
        if not was_there and not is_file:
            files.delete_empty_directory(directory)
    except OSError as error:
        if files.is_uri(path):
            raise
        need = "must lie where files can be written"
        remedy = "Choose another place, or correct its permissions."
        got = f"{path} ({error.strerror or error})"
        raise ConfigError("--out", need, got, remedy) from None


def column_names(labels: Sequence[str], members: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Names of the probability and of the decision columns of each label, all distinct and of no other one.

    Args:
        labels: names of the labels.
        members: names of the members that have columns of their own.
    """
    probabilities = [f"prob:{label}" for label in labels]
    others = {"id", *(f"embedding:{member}" for member in members)}
    others |= {member_column(member, label) for member in members for label in labels}
    if {*others, *probabilities} & set(labels):
        return probabilities, [f"decision:{label}" for label in labels]
    return probabilities, list(labels)


def member_column(member: str, label: str) -> str:
    """Name of the column of a member's own probability of a label; a member's name holds no colon."""
    return f"member:{member}:{label}"


def predictions_table(
    ids: Sequence[str | None],
    probs_NK: NDArray[np.float32],
    decisions_NK: NDArray[np.uint8],
    labels: Sequence[str],
    *,
    member_probs: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
    embeddings: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
) -> pa.Table:
    """One row per image; the schema's metadata holds the ordered label names.

    Args:
        ids: ids of the N images.
        probs_NK: probabilities.
        decisions_NK: 0 or 1.
        labels: names of the K labels.
        member_probs: by member, its probabilities (N, K).
        embeddings: by member, its features (N, D).
    """
    probability_names, decision_names = column_names(labels, [*member_probs, *embeddings])
    columns = {"id": pa.array(list(ids), pa.string())}
    for k, name in enumerate(probability_names):
        columns[name] = pa.array(probs_NK[:, k], pa.float32())
    for k, name in enumerate(decision_names):
        columns[name] = pa.array(decisions_NK[:, k].astype(bool))
    for member, found_NK in member_probs.items():
        for k, label in enumerate(labels):
            columns[member_column(member, label)] = pa.array(found_NK[:, k], pa.float32())
    for member, features_ND in embeddings.items():
        flat = pa.array(features_ND.ravel(), pa.float32())
        columns[f"embedding:{member}"] = pa.FixedSizeListArray.from_arrays(flat, features_ND.shape[1])
    return pa.table(columns).replace_schema_metadata({"labels": json.dumps(list(labels))})


def write_predictions(path: str, table: pa.Table) -> None:
    """Write the table of :func:`predictions_table` as Parquet or CSV, by the suffix of ``path``.

    In CSV, control characters are escaped, and an apostrophe is put before a cell that a spreadsheet would
    take for a formula.

    Raises:
        StorageError: when the object store refuses.
    """
    if files.suffix(path) == ".parquet":
        files.write_table(path, table)
        return
    columns = []
    for column in table.columns:
        if pa.types.is_string(column.type):
            columns.append(pa.array([safe_cell(text) for text in column.to_pylist()], pa.string()))
        else:
            columns.append(column.cast(pa.uint8()) if pa.types.is_boolean(column.type) else column)
    sink = pa.BufferOutputStream()
    csv.write_csv(pa.table(columns, [safe_cell(name) for name in table.column_names]), sink)
    files.write_bytes(path, sink.getvalue().to_pybytes())
