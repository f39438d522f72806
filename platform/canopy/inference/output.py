"""The output file of batch inference: Parquet or CSV, one row per image.

Columns: ``id``; ``prob:LABEL``, the probability of each label (float32); ``LABEL``, the decision (bool in
Parquet, 0 or 1 in CSV). Where the name of a label equals that of another column (``id``, or ``prob:road``,
the probability of ``road``), all decision columns are named ``decision:LABEL`` instead, so that no two
columns collide.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from canopy.errors import ConfigError
from canopy.predictions.safe_csv import safe_cell
from canopy.storage import files

SUFFIXES = (".parquet", ".csv")


def check_output(path: str) -> None:
    """Refuse an output file that cannot be written, by writing an empty file into the same directory.

    Raises:
        ConfigError: when the suffix is unknown, the path is a directory, or its place is not writable.
        StorageError: when the object store refuses.
    """
    if files.suffix(path) not in SUFFIXES:
        need = f"must end in {' or '.join(SUFFIXES)}"
        raise ConfigError("--out", need, files.shown(path), "Give --out FILE.parquet or --out FILE.csv.")
    directory, name = files.parent(path)
    probe = files.join(directory or ".", f"{uuid.uuid4().hex[:8]}{name[8:]}")  # as long as the name itself
    try:
        if files.is_dir(path):
            got = f"the directory {files.shown(path)}"
            raise ConfigError("--out", "must be a file", got, "Add a file name.")
        files.write_bytes(probe, b"")
        filesystem, inner = files.resolve(probe)
        filesystem.delete_file(inner)
    except OSError as error:
        if files.is_uri(path):
            raise
        need, remedy = (
            "must lie where files can be written",
            "Choose another place, or correct its permissions.",
        )
        raise ConfigError("--out", need, f"{path} ({error.strerror or error})", remedy) from None


def column_names(labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the probability and of the decision columns of each label, all distinct and none ``id``."""
    probabilities = [f"prob:{label}" for label in labels]
    if {"id", *probabilities} & set(labels):
        return probabilities, [f"decision:{label}" for label in labels]
    return probabilities, list(labels)


def predictions_table(
    ids: Sequence[str],
    probs_NK: NDArray[np.float32],
    decisions_NK: NDArray[np.uint8],
    labels: Sequence[str],
) -> pa.Table:
    """One row per image; the schema's metadata holds the ordered label names.

    Args:
        ids: ids of the N images.
        probs_NK: probabilities.
        decisions_NK: 0 or 1.
        labels: names of the K labels.
    """
    probability_names, decision_names = column_names(labels)
    columns = {"id": pa.array(list(ids), pa.string())}
    for k, name in enumerate(probability_names):
        columns[name] = pa.array(probs_NK[:, k], pa.float32())
    for k, name in enumerate(decision_names):
        columns[name] = pa.array(decisions_NK[:, k].astype(bool))
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
