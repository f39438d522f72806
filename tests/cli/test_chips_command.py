"""``canopy chips`` says what it cut, and how to train on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.inference.scenes.made import pixels, write_scene
from tests.inference.scenes.test_cutting import square, write_polygons

from canopy.cli.main import main


def test_the_command_names_the_next_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = write_scene(tmp_path / "a.tif", pixels(64, 96))
    labels = write_polygons(tmp_path / "p.geojson", [(square(0, 0, 640), "road")])
    arguments = ["chips", str(scene), "--labels", str(labels), "--out", str(tmp_path / "out"), "--size", "32"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "6 chips" in said
    assert "road: 4 chips" in said
    assert "canopy pipeline --data.source table" in said
    assert main(arguments) == 2
    assert "--out must be empty or new" in capsys.readouterr().err
