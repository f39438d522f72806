"""Files of predictions in every accepted form, and the refusal of all others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.predictions.samples import LABELS, predictions, same, truth

from canopy.errors import PredictionsError
from canopy.predictions import size_limit
from canopy.predictions.io import read_members, read_predictions, split_member, write_predictions
from canopy.storage import files


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
def test_csv_and_column_parquet_of_other_tools(tmp_path: Path, id_name: str) -> None:
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
    ("path", "expected"),
    [
        ("a.npz", ("a.npz", "")),
        ("a.npz#m", ("a.npz", "m")),
        ("d#1/a.npz#m", ("d#1/a.npz", "m")),
        ("d.npz#1/a.csv", ("d.npz#1/a.csv", "")),
        ("d#1/a.parquet", ("d#1/a.parquet", "")),
        ("s3://b/a.npz?region=eu-west-1#m", ("s3://b/a.npz?region=eu-west-1", "m")),
        ("s3://b/a.parquet?region=eu-west-1", ("s3://b/a.parquet?region=eu-west-1", "")),
    ],
)
def test_only_npz_files_have_members(path: str, expected: tuple[str, str]) -> None:
    assert split_member(path) == expected


def test_a_directory_may_hold_a_number_sign_and_a_member_of_a_csv_is_refused(tmp_path: Path) -> None:
    given = predictions()
    write_predictions(tmp_path / "run #1" / "a.parquet", given)
    same(read_predictions(tmp_path / "run #1" / "a.parquet"), given)
    with pytest.raises(PredictionsError, match=r"must not name a member after #, which only \.npz"):
        read_predictions("a.csv#m")


def test_a_query_is_no_part_of_the_suffix(s3_here: None) -> None:
    import boto3  # type: ignore[import-untyped]

    boto3.client("s3").create_bucket(Bucket="members")
    given = predictions()
    write_predictions("s3://members/a.parquet?region=us-east-1", given)
    same(read_predictions("s3://members/a.parquet?region=us-east-1"), given)


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("id,a\n" + "x,0.5\n" * 100)
    monkeypatch.setattr(size_limit, "MAX_BYTES", 200)
    monkeypatch.setattr(files, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(PredictionsError, match=r"a\.csv must need at most"):
        read_predictions(tmp_path / "a.csv")
