"""Tables of predictions: ambiguous columns, damaged lists and too large sizes are refused."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from canopy.errors import InputError, PredictionsError
from canopy.predictions import size_limit, tabular_files
from canopy.predictions.tabular_files import read_csv, read_parquet


def parquet(columns: dict[str, Any], labels: str | None = None) -> bytes:
    table, out = pa.table(columns), io.BytesIO()
    if labels is not None:
        table = table.replace_schema_metadata({"labels": labels})
    pq.write_table(table, out)
    return out.getvalue()


def lists(width: int, rows: int = 2) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.full(rows * width, 0.5, np.float32)), width)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ("id,id,a", r"must have distinct names\. Got: 'id' twice"),
        ("id,a,a", r"must have distinct names\. Got: 'a' twice"),
        (
            "id,image,a",
            r"Got: 'id' and 'image'\. Remove one of the two id columns; rename it if it is a label",
        ),
        ("id,a,image,target:a,target:image", r"Got: 'id' and 'image'"),
        ("name,a,b", r"The id column must be one of id, ids, image_name, image"),
        ("id,a,target:b", r"must belong to labels that have a column of probabilities. Got: 'target:b'"),
        ("id,a,b,target:b", r"for every label or for none. Got: no 'target:a'"),
        ("id,a,,b", r"distinct, non-empty names"),
        ("id", r"must hold a label in addition to the id"),
        ("", r"must begin with a header"),
    ],
)
def test_headers_that_have_two_meanings_are_refused(header: str, match: str) -> None:
    row = "x," + ",".join(["0"] * header.count(","))
    with pytest.raises(InputError, match=match):
        read_csv(f"{header}\n{row}\n".encode())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"id,a,target:a\n", "The CSV file must hold a row. Got: a header only. Write one row per image"),
        (b"id,a\nx,\ny,\n", "Column a must hold numbers. Got: empty cells only. "),
        (bytes(range(256)) * 9, "The CSV file must be UTF-8 text. Got: byte 128 is not. Save the table as"),
        ("id,a\nx,0\n".encode("utf-16"), "The CSV file must be UTF-8 text. Got: byte 0 is not. "),
        ("id,a\nforêt,0\n".encode("latin-1"), "The CSV file must be UTF-8 text. Got: byte 8 is not. "),
        (b"id,a\nx,0\nfor\xc3", "The CSV file must be UTF-8 text. Got: byte 12 is not. "),
    ],
)
def test_csvs_without_rows_numbers_or_text(data: bytes, message: str) -> None:
    with pytest.raises(PredictionsError) as caught:
        read_csv(data)
    assert str(caught.value).startswith(message)


def test_a_byte_that_is_no_text_is_counted_from_the_start_of_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tabular_files, "MIN_BLOCK", 4)  # characters across the ends of blocks
    assert read_csv("id,a\nêêêêê,0.5\n".encode()).ids.tolist() == ["êêêêê"]
    with pytest.raises(PredictionsError, match="byte 10 is not"):
        read_csv("id,a\nxêê".encode() + b"\xff\xff,0\n")


def test_a_label_named_like_a_list_column_is_a_label() -> None:
    found = read_parquet(parquet({"id": ["x"], "probs": [0.25], "targets": [0.5]}))
    assert found.labels.names == ("probs", "targets")
    assert read_csv(b"id,probs\nx,0.25\n").labels.names == ("probs",)


@pytest.mark.parametrize(
    "text", ["5", "null", '{"a":', "[1, 2]", '"ab"', '{"a": 1, "b": 2}', '[["a"], ["b"]]', "[]"]
)
def test_labels_that_are_no_list_of_names_are_refused(text: str) -> None:
    with pytest.raises(PredictionsError, match="must be a JSON list of label names"):
        read_parquet(parquet({"id": ["x", "y"], "probs": lists(2)}, text))


@pytest.mark.parametrize(
    ("probs", "match"),
    [
        (lists(3), r"must hold 2 numbers in every row. Got: 6 values in 2 rows"),
        (pa.array([[0.5, 0.5, 0.5], [0.5]]), r"must hold 2 numbers in every row. Got: rows of other lengths"),
        (pa.array([["a", "b"], ["a", "b"]]), r"must hold 2 numbers in every row. Got: list<"),
    ],
)
def test_lists_of_other_lengths_or_types_are_refused(probs: pa.Array, match: str) -> None:
    with pytest.raises(PredictionsError, match=match):
        read_parquet(parquet({"id": ["x", "y"], "probs": probs}, json.dumps(["a", "b"])))


def test_a_parquet_file_that_unpacks_to_far_more_is_refused() -> None:
    """20 million rows of one repeated id in a few kilobytes: 8 GB once unpacked."""
    rows = 20_000_000
    ids = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * 100]))
    data = parquet({"id": ids, "a": pa.array(np.zeros(rows, np.float32))})
    assert len(data) < 2**20
    with pytest.raises(PredictionsError, match=r"Column id must need at most 1,024 MiB of memory"):
        read_parquet(data)


def test_declared_rows_and_cells_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_limit, "MAX_BYTES", 4000)
    with pytest.raises(PredictionsError, match="The CSV file must need at most"):
        read_csv(b"id,a,b\n" + b"x,0,0\n" * 300)
    with pytest.raises(PredictionsError, match="The Parquet file must need at most"):
        read_parquet(parquet({"id": [f"{n}" for n in range(600)], "a": [0.5] * 600, "b": [0.5] * 600}))


def test_thousands_of_labels_are_read_in_seconds() -> None:
    labels = [f"l{k}" for k in range(8000)]
    header = ",".join(["id", *labels, *(f"target:{label}" for label in labels)])
    row = ",".join(["0.5"] * 8000 + ["1"] * 8000)
    since = time.monotonic()
    found = read_csv("\n".join([header, *(f"im{n},{row}" for n in range(20))]).encode())
    assert found.probs_NK.shape == (20, 8000)
    assert found.targets_NK is not None
    assert time.monotonic() - since < 20
    with pytest.raises(PredictionsError, match="must have at most 65,536 columns"):
        read_csv(",".join(["id", *(f"l{k}" for k in range(70_000))]).encode())
