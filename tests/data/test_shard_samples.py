"""Samples of tar and Parquet shards: images, labels, and what is wrong with a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.shards import jpeg, write_parquet, write_tar

from canopy.config import ShardsConfig
from canopy.data.shard_samples import Sample, read_parquet, read_webdataset
from canopy.errors import DataError

LIMIT = 10**6
PICTURE = jpeg(0)


def read(path: Path, **options: Any) -> list[Sample]:
    """All samples of a shard."""
    reader = read_parquet if path.suffix == ".parquet" else read_webdataset
    return list(reader(str(path), ShardsConfig(**options), LIMIT))


def one(tmp_path: Path, members: dict[str, Any], **options: Any) -> Sample:
    """The only sample of a tar file."""
    (found,) = read(write_tar(tmp_path / "a.tar", [("7", members)]), **options)
    return found


def test_members_of_one_key_are_a_sample(tmp_path: Path) -> None:
    samples = [
        ("x/1", {"jpg": PICTURE, "json": {"labels": ["water", "road"], "flight": 7, "name": "one"}}),
        ("x/2", {"JPG": PICTURE, "json": {"labels": [], "flight": None, "name": "two"}}),
    ]
    expected = [
        Sample("one", "x/1", PICTURE, ("water", "road"), "7", ending=".jpg"),
        Sample("two", "x/2", PICTURE, (), ending=".jpg"),
    ]
    for name, mode in (("a.tar", "w"), ("a.tgz", "w:gz")):
        path = write_tar(tmp_path / name, samples, mode)
        assert read(path, id="name", group="flight") == expected


@pytest.mark.parametrize(
    ("members", "options", "labels"),
    [
        ({"json": {"labels": "water, tall trees"}}, {}, ("water", "tall trees")),
        ({"json": {"labels": None}}, {}, ()),
        ({"json": {"tags": ["a"]}, "cls": "2"}, {"labels": "tags"}, ("a",)),
        ({"json": {"labels": ["a"]}, "cls": "1"}, {"labels": "cls", "names": ("u", "v")}, ("v",)),
        ({"cls": "1"}, {"names": ("u", "v")}, ("v",)),
        ({"cls": "1 0,1\n"}, {"names": ("u", "v")}, ("v", "u")),
        ({"cls": "[0, 1]"}, {"names": ("u", "v")}, ("u", "v")),
        ({"cls": "water\ntall trees"}, {}, ("water", "tall trees")),
        ({"txt": '["a", "b c"]'}, {"labels": ".txt"}, ("a", "b c")),
        ({"cls": ""}, {}, ()),
        ({"json": {"labels": [1, 0]}}, {"names": ("u", "v")}, ("v", "u")),
    ],
)
def test_labels_are_names_or_numbers(
    members: dict[str, Any], options: dict[str, Any], labels: tuple[str, ...], tmp_path: Path
) -> None:
    found = one(tmp_path, {"jpg": PICTURE, **members}, **options)
    assert (found.problem, found.labels) == ("", labels)


@pytest.mark.parametrize(
    ("members", "options", "problem"),
    [
        ({"cls": "1"}, {}, "it has no image (it holds cls)"),
        ({"png": b"", "cls": "a"}, {}, "its image is empty"),
        (
            {"jpg": PICTURE, "png": PICTURE, "cls": "a"},
            {},
            "it has several images (cls, jpg, png): set data.",
        ),
        ({"jpg": PICTURE, "cls": "a"}, {"image": "rgb.tif"}, "it has no member .rgb.tif (it holds cls, jpg)"),
        ({"jpg": b"1" * (LIMIT + 1), "cls": "a"}, {}, "its image has 1 MB, more than data.max_image_mb (1)"),
        ({"jpg": PICTURE}, {}, "it has no labels (it holds jpg)"),
        ({"jpg": PICTURE, "json": {"tags": []}}, {}, "its .json has no field labels (it holds tags)"),
        ({"jpg": PICTURE, "json": b"{"}, {}, "its .json cannot be read"),
        ({"jpg": PICTURE, "json": [1]}, {}, "its .json holds no object"),
        ({"jpg": PICTURE, "json": {"labels": [True]}}, {}, "True is no label: names or numbers are needed"),
        ({"jpg": PICTURE, "cls": "2"}, {"names": ("u", "v")}, "its label 2 is none of the 2 of data.shards"),
        ({"jpg": PICTURE, "cls": b"\xff"}, {}, "its .cls is not UTF-8"),
        ({"jpg": PICTURE, "cls": "[a, b]"}, {}, "its labels cannot be read: [a, b]"),
    ],
)
def test_a_bad_sample_says_why(
    members: dict[str, Any], options: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    found = one(tmp_path, members, **options)
    assert found.problem.startswith(problem)
    assert (found.place, found.image) == ("7", b"")


def test_damaged_shards_and_numbers_without_names_are_errors(tmp_path: Path) -> None:
    samples = [(str(n), {"jpg": PICTURE, "cls": "a"}) for n in range(9)]
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz")):
        path = write_tar(tmp_path / name, samples, mode)
        assert len(read(path)) == 9
        content = path.read_bytes()
        for length in (len(content) * 2 // 3, 512 * (len(content) // 1024), 700):
            path.write_bytes(content[:length])
            with pytest.raises(DataError, match=rf"{name} must be a complete tar file"):
                read(path)
    with pytest.raises(
        DataError, match=r"a\.tar, 7 must have names for numbers of labels\. Got: the number 3"
    ):
        one(tmp_path, {"jpg": PICTURE, "cls": "3"})
    whole = write_parquet(tmp_path / "b.parquet", {"image": [PICTURE] * 9, "labels": ["a"] * 9})
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"b\.parquet must be a complete Parquet file"):
        read(whole)


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
