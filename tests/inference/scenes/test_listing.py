"""What ``--scene`` may name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from canopy.errors import DataError
from canopy.inference.scenes.listing import list_scenes


def item(folder: Path, assets: dict[str, Any]) -> str:
    path = folder / "item.json"
    path.write_text(json.dumps({"type": "Feature", "assets": assets}))
    return str(path)


def test_a_folder_gives_its_rasters_and_a_file_itself(tmp_path: Path) -> None:
    for name in ("b.tif", "a.TIF", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert list_scenes(str(tmp_path)) == [str(tmp_path / "a.TIF"), str(tmp_path / "b.tif")]
    assert list_scenes(str(tmp_path / "b.tif")) == [str(tmp_path / "b.tif")]
    (tmp_path / "a.jp2").write_bytes(b"")
    with pytest.raises(DataError, match="two named a"):
        list_scenes(str(tmp_path))


def test_the_only_raster_of_an_item_is_taken_or_the_named_one(tmp_path: Path) -> None:
    tiff = {"href": "./a.tif", "type": "image/tiff; application=geotiff"}
    one = item(tmp_path, {"visual": tiff, "thumbnail": {"href": "t.png", "type": "image/png"}})
    assert list_scenes(one) == [str(tmp_path / "a.tif")]
    two = item(tmp_path, {"visual": tiff, "red": {"href": "s3://b/red.tif"}})
    with pytest.raises(DataError, match="--asset must name it"):
        list_scenes(two)
    assert list_scenes(two, "red") == ["s3://b/red.tif"]
    with pytest.raises(DataError, match="must be a raster asset"):
        list_scenes(two, "blue")


@pytest.mark.parametrize("content", ["{", "[]", '{"assets": 1}', '{"assets": {"a": {"href": 1}}}'])
def test_a_damaged_item_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "item.json").write_text(content)
    with pytest.raises(DataError):
        list_scenes(str(tmp_path / "item.json"))


def test_nothing_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.tif"):
        with pytest.raises(DataError, match="--scene must"):
            list_scenes(str(path))
