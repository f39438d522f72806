"""The catalogue: what is written is read, and a file from elsewhere is checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from canopy.data.catalogue import Catalogue
from canopy.errors import DataError
from canopy.labels import LabelSet
from canopy.storage import files


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(
        ids=list("abcdef"),
        uris=[f"/data/{name}.jpg" for name in "abcdef"],
        targets_NK=np.array([[1, 0], [0, 0], [1, 1], [0, 1], [0, 1], [1, 0]], np.uint8),
        split=np.array(["train", "train", "val", "val", "test", "train"]),
        fold=np.array([0, 1, 0, 1, -1, 1], np.int8),
        group=np.array(["a", "b", "c", "d", "e", "a"]),
        labels=LabelSet(("water", "cloud")),  # an order of its own
    )


def test_what_is_written_is_read(catalogue: Catalogue, tmp_path: Path) -> None:
    path = str(tmp_path / "catalogue.parquet")
    catalogue.write(path)
    back = Catalogue.read(path)
    assert back.ids == catalogue.ids
    assert back.uris == catalogue.uris
    assert back.labels == catalogue.labels
    for name in ("targets_NK", "split", "fold", "group"):
        assert (getattr(back, name) == getattr(catalogue, name)).all()
        assert getattr(back, name).dtype.kind == getattr(catalogue, name).dtype.kind
    assert back.digest() == catalogue.digest()


def test_the_file_is_the_agreed_table(catalogue: Catalogue, tmp_path: Path) -> None:
    path = str(tmp_path / "catalogue.parquet")
    catalogue.write(path)
    table = files.read_table(path)
    assert [f"{field.name}: {field.type}" for field in table.schema] == [
        "id: string",
        "uri: string",
        "labels: list<element: string>",
        "split: string",
        "fold: int8",
        "group: string",
    ]
    assert table.column("labels").to_pylist() == [
        ["water"], [], ["water", "cloud"], ["cloud"], ["cloud"], ["water"]
    ]  # fmt: skip
    assert files.metadata(table)["canopy.labels"] == '["water", "cloud"]'


def test_rows_and_counts(catalogue: Catalogue) -> None:
    assert len(catalogue) == 6
    assert catalogue.folds == 2
    assert catalogue.rows("train").tolist() == [0, 1, 5]
    assert catalogue.rows("train", fold=1).tolist() == [1, 5]
    assert catalogue.rows("train", not_fold=1).tolist() == [0]
    assert catalogue.rows("val", fold=0).tolist() == [2]
    assert catalogue.rows("test").tolist() == [4]
    assert catalogue.counts(catalogue.rows("val")) == {"water": 1, "cloud": 2}
    assert catalogue.counts(np.zeros(0, np.int64)) == {"water": 0, "cloud": 0}


def test_the_digest_covers_what_is_learned_from_and_not_where_it_lies(catalogue: Catalogue) -> None:
    same = replace(catalogue, uris=[f"s3://bucket/{name}" for name in "abcdef"])
    assert same.digest() == catalogue.digest()
    other_fold = replace(catalogue, fold=np.array([1, 1, 0, 1, -1, 1], np.int8))
    other_label = replace(catalogue, targets_NK=1 - catalogue.targets_NK)
    assert len({c.digest() for c in (catalogue, other_fold, other_label)}) == 3


def test_without_a_stored_label_set_the_labels_are_those_that_occur(tmp_path: Path) -> None:
    path = str(tmp_path / "theirs.parquet")
    files.write_table(path, pa.table(columns()))
    assert Catalogue.read(path).labels.names == ("cloud", "water")


def columns(**changes: Any) -> dict[str, Any]:
    return {
        "id": ["a", "b"],
        "uri": ["a.jpg", "b.jpg"],
        "labels": [["water"], ["cloud"]],
        "split": ["train", "test"],
        "fold": [0, -1],
        "group": ["a", "b"],
    } | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": ["a", "a"]}, "must name every image once. Got: a in rows 1 and 2"),
        (
            {"split": ["train", "holdout"]},
            "must have a split of train, val, test in every row. Got: 'holdout'",
        ),
        ({"fold": [0, None]}, "must have a value in every row of fold"),
    ],
)
def test_a_file_from_elsewhere_is_checked(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = str(tmp_path / "theirs.parquet")
    files.write_table(path, pa.table(columns(**changes)))
    with pytest.raises(DataError) as error:
        Catalogue.read(path)
    assert message in str(error.value)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    path = str(tmp_path / "theirs.parquet")
    files.write_table(path, pa.table({"id": ["a"], "labels": [["x"]]}))
    with pytest.raises(DataError, match=r"Got: id, labels\. Add uri, split, fold, group"):
        Catalogue.read(path)
