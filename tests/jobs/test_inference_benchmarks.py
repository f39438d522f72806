"""The benchmarks of inference at a small size: both sides predict the same, all figures are reported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs.benchmarks.inference.pointing import share_in_top
from tests.support import REPOSITORY


def test_a_map_without_a_clue_holds_a_quarter_of_a_thing() -> None:
    place_HW = np.zeros((8, 8), np.float32)
    place_HW[:4, :4] = 1
    assert share_in_top(place_HW, np.zeros((8, 8), np.float32)) == pytest.approx(0.25)
    assert share_in_top(place_HW, place_HW) == pytest.approx(1)
    assert share_in_top(place_HW, -place_HW) == pytest.approx(0)
    half_HW = np.zeros((8, 8), np.float32)
    half_HW[:2, :] = 1
    assert share_in_top(place_HW, half_HW) == pytest.approx(0.5)


def records(out: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run a benchmark in a process of its own; what it wrote."""
    command = [sys.executable, str(REPOSITORY / "jobs/benchmarks/inference"), *arguments, "--out", str(out)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.slow
def test_the_bare_loop_and_the_pipeline_predict_the_same(tmp_path: Path) -> None:
    size = ["--size", "64", "--images", "256", "--trial-images", "64", "--shard-rows", "32"]
    networks = ["--backbones", "test_resnet", "test_efficientnet"]
    found = records(tmp_path / "o.jsonl", "speed", "--repeats", "1", *size, *networks)
    values = {one["note"]: one["value"] for one in found if "note" in one}
    ours, theirs = values["sum of our probabilities"][0], values["sum of the bare loop's probabilities"][0]
    assert ours == pytest.approx(theirs, rel=1e-5)
    ratios = [one for one in found if "ratio" in one]
    assert [one["ratio"] for one in ratios] == ["images/s: ours / best bare loop"]
    assert ratios[0]["values"][0] > 0


@pytest.mark.slow
def test_autotune_is_compared_with_the_defaults(tmp_path: Path) -> None:
    few = ["--presets", "demo", "--threads", "1", "--repeats", "1", "--steps", "1"]
    found = records(tmp_path / "o.jsonl", "autotune", *few)
    ratios = {one["ratio"]: one["values"][0] for one in found if "ratio" in one}
    assert len(ratios) % 3 == 0
    assert {name.split(": ")[1] for name in ratios} == {"training", "evaluation", "prediction"}
    assert all(value > 0 for value in ratios.values())


@pytest.mark.slow
def test_the_memory_of_the_driver_is_reported(tmp_path: Path) -> None:
    found = records(tmp_path / "o.jsonl", "memory", "--images", "6000")
    (ratio,) = [one for one in found if "ratio" in one]
    assert 0.5 < ratio["values"][0] < 2
