"""The whole pipeline on a subset of the real chips, CMYK JPEGs among them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import read_json, unpack_planet32

from jobs import pipeline


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_real_chips_go_the_whole_way(planet32: Path, tmp_path: Path) -> None:
    root = unpack_planet32(planet32, tmp_path / "planet", rows=6000)
    short = [f"--variants.{n}.optim.epochs=1" for n in range(3)]
    short += [f"--variants.{n}.model.input-size=32" for n in range(3)]
    run = tmp_path / "run"
    arguments = ["--preset", "planet32", "--data.root", str(root), "--run-dir", str(run)]
    assert pipeline.main([*arguments, *short, "--sweep.trials", "0", "--ensemble.bootstrap", "100"]) == 0
    summary = read_json(run / "summary.json")
    assert summary["data"]["rows"] == {"train": 3900, "val": 900, "test": 1200}
    assert summary["sweep"] is None
    assert summary["ceiling"] is None
    assert read_json(run / "prepare" / "validation.json")["modes"] == {"CMYK": 6000}
    # Deciding "clear, primary" for every chip gives .70.
    assert summary["ensemble"]["micro_f1"] > 0.72
