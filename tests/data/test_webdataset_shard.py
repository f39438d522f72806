"""Samples of tar shards: images, labels, and what is wrong with a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.shards import jpeg, write_tar

from canopy.config import ShardsConfig
from canopy.data.shard_samples import Sample
from canopy.data.webdataset_shard import read_webdataset
from canopy.errors import DataError

LIMIT = 10**6
PICTURE = jpeg(0)


def read(path: Path, **options: Any) -> list[Sample]:
    """All samples of a shard."""
    return list(read_webdataset(str(path), ShardsConfig(**options), LIMIT))


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
        ({"jpg": PICTURE, "cls": "0 1 1"}, {"names": ("u", "v", "w")}, "its labels are 3 times 0 or 1: "),
        ({"jpg": PICTURE, "cls": "9" * 5000}, {"names": ("u", "v")}, "its label 9999999999999999999 is none"),
        ({"jpg": PICTURE, "JPG": PICTURE, "cls": "a"}, {}, "it has several members .jpg"),
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


def test_neighboring_samples_of_one_name_are_bad(tmp_path: Path) -> None:
    samples = [("7", {"jpg": jpeg(n), "cls": str(n)}) for n in range(2)]
    (found,) = read(write_tar(tmp_path / "a.tar", samples), names=("u", "v"))
    assert (found.image, found.labels) == (b"", ())
    assert found.problem.startswith("it has several members .cls: two samples have one name")


def test_joined_archives_and_damaged_compression_are_errors(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("1", {"jpg": PICTURE, "cls": "a"})])
    content = path.read_bytes()
    path.write_bytes(content + content)
    with pytest.raises(DataError, match=r"Got: more follows after its end"):
        read(path)
    path.write_bytes(content + bytes(50_000))
    assert len(read(path)) == 1
    path = write_tar(tmp_path / "a.tgz", [(str(n), {"jpg": jpeg(n), "cls": "a"}) for n in range(9)], "w:gz")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    for broken in (bytes(damaged), b"not compressed" * 100):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"a\.tgz must be a complete tar file\. Got: "):
            read(path)
