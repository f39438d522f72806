"""Shards become image files and a table once; another shard is another data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from tests.shards import jpeg, write_parquet, write_tar

from canopy.config import DataConfig
from canopy.data.shards import Shard, find_shards, read_samples, split_of, unpack_shards
from canopy.data.sources import list_images
from canopy.errors import DataError, RunDirError


def one_by_one(work: Callable[[Shard], pa.Table], shards: Sequence[Shard]) -> Iterator[pa.Table]:
    """The tasks, in this process."""
    return map(work, shards)


def never(work: Callable[[Shard], pa.Table], shards: Sequence[Shard]) -> Iterator[pa.Table]:
    raise AssertionError("nothing is to be done")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("data/validation-00000-of-00001.parquet", "val"),
        ("default/test/0000.parquet", "test"),
        ("val_3.tar", "val"),
        ("valley.tar", ""),
        ("0001.tar", ""),
        ("train/test-1.tar", "test"),
    ],
)
def test_names_and_folders_give_the_split(name: str, split: str) -> None:
    assert split_of(name) == split


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Two shards of three samples; the last has no image."""
    root = tmp_path / "set"
    in_json = {"jpg": jpeg(1), "json": {"labels": ["water"]}}
    write_tar(root / "train-0.tar", [("a", in_json), ("b", {"png": jpeg(2), "cls": "road"})])
    write_tar(root / "sub" / "extra-1.tar", [("a", {"jpg": jpeg(3), "cls": "road"}), ("c", {"cls": "road"})])
    (root / ".cache.tar").write_bytes(b"")
    return root


def config(**shards: object) -> DataConfig:
    return DataConfig.model_validate(
        {"source": "webdataset", "shards": shards, "max_bad_fraction": 0.5, "image_size": 16}
    )


def test_images_are_written_once_and_listed(tars: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    digest = unpack_shards(config(), str(tars), out, one_by_one)
    entries, strays = read_samples(out)
    assert [(e.id, e.tags, e.split, e.where) for e in entries] == [
        ("sub/extra-1/a", ("road",), "", "sub/extra-1.tar, a"),
        ("train-0/a", ("water",), "train", "train-0.tar, a"),
        ("train-0/b", ("road",), "train", "train-0.tar, b"),
    ]
    assert strays == {"sub/extra-1/c": "it has no image (it holds cls) (sub/extra-1.tar, c)"}
    listing = list_images(config(), out)
    assert [Path(uri).read_bytes() for uri in listing.uris] == [jpeg(3), jpeg(1), jpeg(2)]
    assert listing.bad == strays
    assert listing.splits == ["", "train", "train"]
    assert unpack_shards(config(), str(tars), out, never) == digest
    write_tar(tars / "train-0.tar", [("a", {"jpg": jpeg(9), "cls": "water"})])
    assert unpack_shards(config(), str(tars), out, one_by_one) != digest
    assert [entry.id for entry in read_samples(out)[0]] == ["sub/extra-1/a", "train-0/a"]
    assert Path(list_images(config(), out).uris[1]).read_bytes() == jpeg(9)


def test_a_killed_start_leaves_no_marker(tars: Path, tmp_path: Path) -> None:
    def dies(work: Callable[[Shard], pa.Table], shards: Sequence[Shard]) -> Iterator[pa.Table]:
        yield work(shards[0])
        raise KeyboardInterrupt

    out = str(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        unpack_shards(config(), str(tars), out, dies)
    with pytest.raises(AssertionError, match="nothing is to be done"):
        unpack_shards(config(), str(tars), out, never)


def test_images_that_a_run_belongs_to_are_not_written_over(tars: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    digest = unpack_shards(config(), str(tars), out, one_by_one, claimed=True)
    for changed in (config(labels="cls"), config(splits=False)):
        with pytest.raises(RunDirError, match=r"must hold the images of the shards that this run was made"):
            unpack_shards(changed, str(tars), out, never, claimed=True)
    assert unpack_shards(config(), str(tars), out, never, claimed=True) == digest
    assert len(list_images(config(), out)) == 3


def test_a_label_that_is_probably_several_is_an_error(tmp_path: Path) -> None:
    cells = ("road", "water", "road;water")
    write_tar(tmp_path / "a.tar", [(str(n), {"jpg": jpeg(n), "cls": cell}) for n, cell in enumerate(cells)])
    out = str(tmp_path / "out")
    unpack_shards(config(), str(tmp_path), out, one_by_one)
    with pytest.raises(DataError, match=r"between commas or lines\. Got: the label 'road;water'"):
        list_images(config(), out)
    named = config().model_copy(update={"labels": cells})
    assert list_images(named, out).tags == [(cell,) for cell in cells]


def test_names_without_unicode_are_unpacked(tmp_path: Path) -> None:
    members = {"jpg": jpeg(0), "json": b'{"labels": ["a", "\\ud800"]}'}
    write_tar(tmp_path / "a.tar", [("caf\udce9", {"jpg": jpeg(0), "cls": "a"}), ("half", members)])
    unpack_shards(config(), str(tmp_path), str(tmp_path / "out"), one_by_one)
    entries, strays = read_samples(str(tmp_path / "out"))
    assert [entry.id for entry in entries] == ["a/caf\\xe9"]
    assert strays == {"a/half": "its label '\\ud800' is no text of Unicode (a.tar, half)"}


def test_splits_of_names_can_be_left_aside(tars: Path) -> None:
    assert {shard.split for shard in find_shards(str(tars), "webdataset", False)} == {""}
    assert [s.name for s in find_shards(str(tars), "webdataset", True)] == ["sub/extra-1.tar", "train-0.tar"]


def test_parquet_of_the_hub(tmp_path: Path) -> None:
    root = tmp_path / "hub" / "data"
    for split, seeds in (("train", (1, 2)), ("test", (3,))):
        columns = {"image": [{"bytes": jpeg(n), "path": None} for n in seeds], "labels": [[0]] * len(seeds)}
        write_parquet(
            root / f"{split}-00000-of-00001.parquet", columns, {"labels": {"feature": {"names": ["sea"]}}}
        )
    data, out = DataConfig(source="huggingface"), str(tmp_path / "out")
    unpack_shards(data, str(tmp_path / "hub"), out, one_by_one)
    listing = list_images(data, out)
    rows = (("test", 1), ("train", 1), ("train", 2))
    assert listing.ids == [f"data/{split}-00000-of-00001/{row}" for split, row in rows]
    assert listing.tags == [("sea",)] * 3
    assert listing.splits == ["test", "train", "train"]


def test_no_shard_and_no_sample_are_errors(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"data\.root must hold shards \(\.tar, \.tar\.gz, \.tgz\)\. Got: none in"
    ):
        unpack_shards(config(), str(tmp_path), str(tmp_path / "out"), one_by_one)
    write_tar(tmp_path / "a.tar", [])
    with pytest.raises(DataError, match=r"must hold a sample\. Got: 1 shards without one"):
        unpack_shards(config(), str(tmp_path), str(tmp_path / "out"), one_by_one)
