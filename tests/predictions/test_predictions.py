"""Files of predictions in every accepted form, and what is refused with the first offender named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from canopy.errors import PredictionsError
from canopy.labels import LabelSet
from canopy.predictions.io import (
    Predictions,
    align,
    concatenate,
    read_members,
    read_predictions,
    write_predictions,
)

LABELS = LabelSet(("clear", "road", "water"))


def predictions(rows: int = 6, seed: int = 0, **changes: Any) -> Predictions:
    rng = np.random.default_rng(seed)
    given: dict[str, Any] = {
        "ids": np.array([f"chip_{n}" for n in range(rows)]),
        "probs_NK": rng.random((rows, 3)).astype(np.float32),
        "labels": LABELS,
        "targets_NK": rng.integers(0, 2, (rows, 3)).astype(np.uint8),
    }
    return Predictions(**{**given, **changes})


def truth(given: Predictions) -> NDArray[np.uint8]:
    assert given.targets_NK is not None
    return given.targets_NK


def same(a: Predictions, b: Predictions) -> None:
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.probs_NK, b.probs_NK)
    np.testing.assert_array_equal(a.targets_NK, b.targets_NK)
    assert a.labels == b.labels


def test_parquet_round_trip_is_exact_and_leaves_nothing_beside(tmp_path: Path) -> None:
    given = predictions(logits_NK=np.random.default_rng(1).normal(size=(6, 3)), config_hash="abc")
    write_predictions(tmp_path / "deep" / "a.parquet", given)
    for path in (str(tmp_path / "deep" / "a.parquet"), f"file://{tmp_path}/deep/a.parquet"):
        read = read_predictions(path)
        same(read, given)
        np.testing.assert_array_equal(read.logits_NK, given.logits_NK)
        assert read.config_hash == "abc"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.parquet"]
    schema = pq.read_schema(tmp_path / "deep" / "a.parquet")
    assert schema.field("probs").type == pa.list_(pa.float32(), 3)


@pytest.mark.parametrize("id_name", ["id", "image_name"])
def test_csv_and_column_parquet_of_others(tmp_path: Path, id_name: str) -> None:
    given = predictions(ids=np.array(["007", "1e5", "a", "b", "c", "d"]))  # ids stay text
    columns: dict[str, Any] = {id_name: given.ids.tolist()}
    for k, name in enumerate(LABELS.names):
        columns[name] = given.probs_NK[:, k].tolist()
        columns[f"target:{name}"] = truth(given)[:, k].tolist()
    table = pa.table(columns)
    pa.csv.write_csv(table, tmp_path / "a.csv")
    pq.write_table(table, tmp_path / "a.parquet")
    same(read_predictions(tmp_path / "a.csv"), given)
    same(read_predictions(tmp_path / "a.parquet"), given)


def test_npz_of_one_and_of_several_members(tmp_path: Path) -> None:
    a, b = predictions(), predictions(seed=1, targets_NK=predictions().targets_NK)
    names = np.array(LABELS.names)
    np.savez(tmp_path / "one.npz", id=a.ids, labels=names, probs=a.probs_NK, targets=truth(a))
    np.savez(
        tmp_path / "two.npz", image_name=a.ids, classes=names, y=truth(a), p_a=a.probs_NK, p_b=b.probs_NK
    )
    same(read_predictions(tmp_path / "one.npz"), a)
    both = read_members(tmp_path / "two.npz")
    same(both["a"], a)
    same(both["b"], b)
    assert list(read_members(tmp_path / "one.npz")) == ["one"]
    np.savez(tmp_path / "p.npz", image_name=a.ids, classes=names, p_a=a.probs_NK)  # one member, by its name
    np.testing.assert_array_equal(read_members(tmp_path / "p.npz")["a"].probs_NK, a.probs_NK)
    with pytest.raises(PredictionsError, match=r"file\.npz#member"):
        read_predictions(tmp_path / "two.npz")


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    ids = np.array(["a", "b"], dtype=object)
    np.savez(tmp_path / "evil.npz", id=ids, labels=np.array(["x"]), probs=np.zeros((2, 1)), allow_pickle=True)
    with pytest.raises(PredictionsError, match=r"evil\.npz"):
        read_predictions(tmp_path / "evil.npz")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.parquet", None),
        ("a.txt", b""),
        ("a.parquet", b"no"),
        ("a.npz", b"no"),
        ("b.npz", b"PK\x03\x04 cut off"),
        ("a.csv", b"x,y\n1,2\n"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PredictionsError, match=name.replace(".", r"\.")):
        read_predictions(tmp_path / name)


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("probs_NK", np.nan, r"'chip_2', label 'road' must be finite"),
        ("probs_NK", np.inf, r"'chip_2', label 'road' must be finite"),
        ("probs_NK", 1.5, r"'chip_2', label 'road' must be in \[0, 1\]. Got: 1.5"),
        ("probs_NK", -0.1, r"'chip_2', label 'road' must be in"),
        ("targets_NK", 2, r"target of id 'chip_2', label 'road'"),
        ("targets_NK", 0.5, r"must be 0 or 1. Got: 0.5"),
    ],
)
def test_the_first_bad_value_is_named(column: str, value: float, match: str) -> None:
    array = np.zeros((6, 3), np.float64)
    array[2, 1] = array[4, 0] = value
    with pytest.raises(PredictionsError, match=match):
        predictions(6, 0, **{column: array})


def test_shapes_and_twins_are_refused() -> None:
    with pytest.raises(PredictionsError, match=r"shape \(6, 3\)"):
        predictions(probs_NK=np.zeros((6, 2)))
    with pytest.raises(PredictionsError, match="'x' twice"):
        predictions(ids=np.array(["a", "x", "b", "x", "c", "d"]))
    with pytest.raises(PredictionsError, match="must hold numbers"):
        predictions(probs_NK=np.full((6, 3), "a"))


def test_align_takes_rows_and_members_in_any_order() -> None:
    a, b = predictions(), predictions(seed=1, targets_NK=None)
    out = align({"b": b.rows(np.array([3, 1, 0, 2, 5, 4])), "a": a.rows(np.arange(6)[::-1])})
    assert list(out) == ["a", "b"]
    np.testing.assert_array_equal(out["a"].ids, np.sort(a.ids))
    np.testing.assert_array_equal(out["b"].probs_NK, b.probs_NK)
    np.testing.assert_array_equal(out["b"].targets_NK, a.targets_NK)


def test_align_names_the_first_difference() -> None:
    a = predictions()
    fewer = predictions(seed=1).rows(np.array([0, 1, 2, 4, 5]))
    with pytest.raises(PredictionsError, match="'chip_3' is in a and not in b"):
        align({"a": a, "b": fewer})
    with pytest.raises(PredictionsError, match=r"Label 1 must be the same.*'road' in a, 'rood' in b"):
        align({"a": a, "b": predictions(labels=LabelSet(("clear", "rood", "water")))})
    with pytest.raises(PredictionsError, match=r"Label 0.*'clear' in a, 'road' in b"):
        align({"a": a, "b": predictions(labels=LabelSet(("road", "clear", "water")))})
    flipped = truth(a).copy()
    flipped[4, 2] ^= 1
    with pytest.raises(PredictionsError, match="target of id 'chip_4', label 'water'"):
        align({"a": a, "b": predictions(targets_NK=flipped)})
    with pytest.raises(PredictionsError, match="at least one member"):
        align({})


def test_parts_become_one_member_and_overlap_is_refused() -> None:
    whole = predictions()
    parts = [whole.rows(np.array([0, 1])), whole.rows(np.array([2, 3, 4, 5]))]
    same(concatenate(parts), whole)
    with pytest.raises(PredictionsError, match="'chip_1' twice"):
        concatenate([parts[0], whole.rows(np.array([1]))])
