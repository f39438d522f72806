"""Samples of the hub's Parquet files: columns, ClassLabel, and what is wrong with a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.shards import jpeg, write_parquet

from canopy.config import ShardsConfig
from canopy.data.parquet_shard import read_parquet
from canopy.data.shard_samples import Sample
from canopy.errors import DataError

LIMIT = 10**6
PICTURE = jpeg(0)


def read(path: Path, **options: Any) -> list[Sample]:
    """All samples of a shard."""
    return list(read_parquet(str(path), ShardsConfig(**options), LIMIT))


def images(*contents: bytes | None) -> pa.Array:
    """A column of images as datasets writes them."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": content, "path": "x.jpg"} for content in contents], kind)


@pytest.mark.parametrize(
    "feature",
    [
        {"feature": {"names": ["u", "v"], "_type": "ClassLabel"}, "_type": "Sequence"},
        [{"names": ["u", "v"], "_type": "ClassLabel"}],
        {"feature": {"names": ["u", "v"], "_type": "ClassLabel"}, "_type": "List"},
    ],
)
def test_numbers_of_a_class_label_have_its_names(feature: Any, tmp_path: Path) -> None:
    columns = {"image": images(PICTURE, PICTURE, None), "labels": [[1, 0], [], [0]]}
    path = write_parquet(tmp_path / "a.parquet", columns, {"labels": feature, "image": {"_type": "Image"}})
    found = read(path)
    assert [sample.labels for sample in found] == [("v", "u"), (), ()]
    assert [sample.place for sample in found] == ["row 1", "row 2", "row 3"]
    assert found[2].problem == "its image is a path without bytes (x.jpg)"
    assert read(path, names=("x", "y"))[0].labels == ("y", "x")


def test_columns_of_parquet(tmp_path: Path) -> None:
    columns = {"picture": [PICTURE], "tags": [["a", "b"]], "key": [17], "flight": ["f"], "extra": [None]}
    path = write_parquet(tmp_path / "a.parquet", columns)
    (found,) = read(path, image="picture", labels="tags", id="key", group="flight")
    assert found == Sample("17", "row 1", PICTURE, ("a", "b"), "f")
    single = write_parquet(tmp_path / "b.parquet", {"image": [PICTURE], "labels": ["tall trees"]})
    assert read(single)[0].labels == ("tall trees",)
    for options, message in (
        ({}, r"must have the column image \(data\.shards\.image\)\. Got: picture, tags, key"),
        ({"image": "picture"}, r"must have the column labels .*--data\.shards\.labels COLUMN"),
        ({"image": "picture", "labels": "tags", "id": "x"}, "must have the column x"),
        (
            {"image": "key", "labels": "tags"},
            "key must hold image files: bytes, or a struct with bytes. Got: int64",
        ),
    ):
        with pytest.raises(DataError, match=message):
            read(path, **options)
    numbers = write_parquet(tmp_path / "c.parquet", {"image": [PICTURE], "labels": [[4]]})
    with pytest.raises(DataError, match=r"row 1 must have names for numbers of labels\. Got: the number 4"):
        read(numbers)


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    whole = write_parquet(tmp_path / "b.parquet", {"image": [PICTURE] * 9, "labels": ["a"] * 9})
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"b\.parquet must be a complete Parquet file"):
        read(whole)
    whole = write_parquet(tmp_path / "c.parquet", {"image": [PICTURE] * 9, "labels": ["a"] * 9})
    content = bytearray(whole.read_bytes())
    content[4:60] = b"\xff" * 56
    whole.write_bytes(content)
    with pytest.raises(DataError, match=r"c\.parquet must be a complete Parquet file"):
        read(whole)


def test_text_is_no_image_and_a_list_of_flags_no_list_of_numbers(tmp_path: Path) -> None:
    text = write_parquet(tmp_path / "a.parquet", {"image": [{"bytes": "abc", "path": ""}], "labels": ["a"]})
    with pytest.raises(DataError, match=r"must hold image files: bytes, or a struct with bytes"):
        read(text)
    flags = write_parquet(tmp_path / "b.parquet", {"image": [PICTURE] * 2, "labels": [[0, 1, 1], [0, 1, 2]]})
    first, second = read(flags, names=("u", "v", "w"))
    assert first.problem == "its labels are 3 times 0 or 1: the numbers of those that it has are needed"
    assert second.labels == ("u", "v", "w")
