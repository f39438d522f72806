"""The directory of an export: refused before anything starts, complete or not there."""

from __future__ import annotations

import json
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest

from canopy.errors import ConfigError
from canopy.inference.export.destination import building, check_destination
from canopy.storage import files


def test_a_place_that_is_taken_or_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("")
    with pytest.raises(ConfigError, match="--to must be a directory that does not exist yet"):
        check_destination(str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"--to must not exist, or be empty.*a\.txt"):
        check_destination(str(tmp_path / "full"))
    for nowhere in ("/proc/canopy/out", str(tmp_path / "file" / "out")):
        with pytest.raises(ConfigError, match="--to must lie where files can be written"):
            check_destination(nowhere)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


@pytest.mark.parametrize("exists", [False, True])
def test_the_directory_appears_as_a_whole(exists: bool, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    if exists:
        out.mkdir(parents=True)
    check_destination(str(out))
    with building(str(out)) as growing:
        (growing / "members").mkdir()
        (growing / "members" / "a.onnx").write_text("a")
        assert not out.exists() or not any(out.iterdir())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    assert (out / "members" / "a.onnx").read_text() == "a"


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with building(str(tmp_path / "out")) as growing:
            (growing / "a").write_text("a")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_it_is_copied_to_an_object_store(s3_here: str) -> None:
    boto3.client("s3", endpoint_url=s3_here).create_bucket(Bucket="exports")
    target = "s3://exports/a b/out"
    check_destination(target)
    with building(target) as growing:
        (growing / "hub").mkdir()
        (growing / "hub" / "config.json").write_text("{}")
        (growing / "export.json").write_text(json.dumps({"a": 1}))
    assert files.list_files(target, recursive=True) == {"export.json": 8, "hub/config.json": 2}
    assert files.read_json(f"{target}/export.json") == {"a": 1}
    with pytest.raises(ConfigError, match="--to must not exist, or be empty"):
        check_destination(target)
