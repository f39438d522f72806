"""The output file of batch inference: its place, its columns, its two formats."""

from __future__ import annotations

import csv
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from canopy.errors import ConfigError
from canopy.inference.predictions_table import (
    check_output,
    column_names,
    predictions_table,
    write_predictions,
)
from canopy.storage import files

PROBS = np.array([[0.25, 0.75], [0.5, 0.125]], np.float32)
DECISIONS = np.array([[0, 1], [1, 0]], np.uint8)


def test_columns_of_members_collide_with_no_label() -> None:
    _, decisions = column_names(["member:resnet:road", "road"], ["resnet"])
    assert decisions == ["decision:member:resnet:road", "decision:road"]
    assert column_names(["member:resnet:road", "road"])[1] == ["member:resnet:road", "road"]
    assert column_names(["embedding:resnet"], ["resnet"])[1] == ["decision:embedding:resnet"]


def test_columns_of_ordinary_labels_keep_their_names() -> None:
    table = predictions_table(["a.jpg", "b.jpg"], PROBS, DECISIONS, ["road", "water"])
    assert table.column_names == ["id", "prob:road", "prob:water", "road", "water"]
    assert files.metadata(table) == {"labels": '["road", "water"]'}


def test_no_labels_make_two_columns_collide() -> None:
    awkward = ["id", "road", "prob:road", "prob:id", "prob:prob:road", "decision:road", "decision:id"]
    for labels in product(awkward, repeat=3):
        if len(set(labels)) == 3:
            probabilities, decisions = column_names(labels)
            assert len({"id", *probabilities, *decisions}) == 7, labels


@pytest.mark.parametrize("labels", [["id", "road"], ["road", "prob:road"]])
def test_values_of_colliding_labels_are_kept_apart(labels: list[str], tmp_path: Path) -> None:
    out = str(tmp_path / "o.parquet")
    write_predictions(out, predictions_table(["a.jpg", "b.jpg"], PROBS, DECISIONS, labels))
    table = pq.read_table(out).to_pydict()
    assert table["id"] == ["a.jpg", "b.jpg"]
    for k, label in enumerate(labels):
        assert table[f"prob:{label}"] == PROBS[:, k].tolist()
        assert table[f"decision:{label}"] == DECISIONS[:, k].astype(bool).tolist()


def test_csv_holds_the_same_values_and_is_safe_to_open(tmp_path: Path) -> None:
    out = tmp_path / "o.CSV"
    ids = ['=1+1, "x".jpg', "line\nbreak\x1b[31m.jpg"]
    write_predictions(str(out), predictions_table(ids, PROBS, DECISIONS, ["-road", "water"]))
    with out.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert rows == [
        ["id", "prob:-road", "prob:water", "'-road", "water"],
        ['\'=1+1, "x".jpg', "0.25", "0.75", "0", "1"],
        [r"line\nbreak\x1b[31m.jpg", "0.5", "0.125", "1", "0"],
    ]


@pytest.mark.parametrize("name", ["o.json", "o.parquet.gz"])
def test_another_suffix_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--out must be a directory, or a file that ends in \.parquet or \.csv"
    ):
        check_output(f"{tmp_path}/{name}")


@pytest.mark.parametrize("name", ["o", "o.json/", "deep/er/o", "v1.2"])
def test_a_directory_is_left_as_it_was(name: str, tmp_path: Path) -> None:
    (tmp_path / "v1.2").mkdir()
    (tmp_path / "v1.2" / "former").write_text("")
    check_output(f"{tmp_path}/{name}")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["former"]
    assert not (tmp_path / "o").exists()


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(ConfigError, match="--out must be a file"):
        check_output(str(tmp_path / "d.csv"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--out must lie where files can be written"):
        check_output(str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="--out must lie where files can be written"):
        check_output(str(tmp_path / "file" / "o.csv"))
    with pytest.raises(ConfigError, match="--out must lie where files can be written"):
        check_output("/proc/canopy/o.csv")
    with pytest.raises(ConfigError, match="--out must lie where files can be written"):
        check_output(str(tmp_path / f"{'n' * 300}.csv"))


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    check_output(str(tmp_path / "o.csv"))
    (tmp_path / "o.csv").write_text("former")
    check_output(str(tmp_path / "o.csv"))
    assert [path.name for path in tmp_path.iterdir()] == ["o.csv"]
    assert (tmp_path / "o.csv").read_text() == "former"
