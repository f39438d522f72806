"""The benchmark of bands: its table from figures alone, and its smallest run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from jobs.benchmarks.ablation.records import Records
from jobs.benchmarks.ablation.runs import RowPredictions
from jobs.benchmarks.bands.__main__ import main
from jobs.benchmarks.bands.study import FIGURES, Size, data_config, figures, gain, run_key, variant_of

from canopy.bands import BandLayout

SIZE = asdict(Size(400, 32, 1, "test_resnet"))


def fill(path: Path) -> Records:
    records = Records.open(path)
    for seed, gained in enumerate((0.1, 0.2, 0.3)):
        for network, more in (("rgb", 0.0), ("nir", gained), ("copy", 0.0)):
            values = [0.4 + more + seed / 100, 0.3 + more, 0.5, 0.6]
            found = dict(zip(FIGURES, values, strict=True))
            records.add({"kind": "run", "network": network, "seed": seed, "size": SIZE, "figures": found})
    return records


def test_gains_are_paired_by_seed(tmp_path: Path) -> None:
    lines = fill(tmp_path / "x.jsonl").lines
    found = gain(lines, "nir", "infrared_map")
    assert found == pytest.approx((0.2, 4.303 * 0.1 / np.sqrt(3), 3), rel=1e-3)  # Student, 2 degrees
    assert gain(lines, "copy", "infrared_map") == (0, 0, 3)
    two = gain(lines[:5], "nir", "infrared_map")
    assert two == pytest.approx((0.15, 12.706 * 0.05, 2), rel=1e-3)
    assert gain(lines[:4], "nir", "infrared_map") is None


def test_figures_of_other_chips_are_measured_again() -> None:
    sizes = [Size(400, side, 1, "test_resnet") for side in (64, 32)]
    variant = variant_of(sizes[0], 0)
    keys = {run_key(variant, "rows", network, size) for size in sizes for network in ("rgb", "nir")}
    assert len(keys) == 4
    assert run_key(variant, "rows", "rgb", Size(400, 64, 1, "test_resnet")) in keys


def test_the_table_needs_no_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "x.jsonl")
    assert main(["table", "--out", str(tmp_path / "x.jsonl")]) == 0
    output = capsys.readouterr().out
    assert "400 chips of 32 px, test_resnet, 1 epochs" in output
    assert "| with near infrared | 0.610 | 0.500 | 0.500 | 0.600 | 3 |" in output
    assert "| – gain over red, green, blue | +0.200 ± 0.248 | +0.200 ± 0.248 | +0.000 ± 0.000 |" in output
    assert main(["table", "--out", str(tmp_path / "none.jsonl")]) == 0
    assert "No network has been trained yet." in capsys.readouterr().out


def test_figures_of_the_two_groups_of_labels() -> None:
    names = ("primary", "regrowth", "stressed_canopy", "water")
    targets_NK = np.array([[1, 1, 0, 0], [0, 0, 1, 1]] * 4, np.uint8)
    wrong_NK = targets_NK.copy()
    wrong_NK[:, [0, 3]] ^= 1
    probs_NK = wrong_NK.astype(np.float32)
    predicted = RowPredictions(probs_NK, probs_NK, wrong_NK, wrong_NK, np.zeros((5, 1)))
    found = figures(targets_NK, predicted, names)
    assert (found["infrared_map"], found["infrared_macro_f1"]) == (1, 1)
    assert found["other_macro_f1"] == 0


def test_the_networks_see_the_same_files() -> None:
    size = Size(400, 32, 1, "test_resnet")
    seen = {name: data_config(name, size, Path("/x")) for name in ("rgb", "nir", "copy")}
    numbers = {name: [band.band for band in config.bands] for name, config in seen.items()}
    assert numbers == {"rgb": [3, 2, 1], "nir": [3, 2, 1, 4], "copy": [3, 2, 1, 2]}
    assert len({config.generate for config in seen.values()}) == 1
    assert all(BandLayout.of(config) is not None for config in seen.values())


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_tiny_run_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bands.jsonl"
    words = ["run", "--rows", "500", "--size", "32", "--epochs", "1", "--cache", str(tmp_path / "cache")]
    words += ["--networks", "rgb", "nir", "--out", str(out), "--threads", "1"]
    assert main([*words, "--seeds", "1"]) == 0
    first = out.read_text()
    assert len(first.splitlines()) == 2
    assert main([*words, "--seeds", "2"]) == 0
    assert out.read_text().startswith(first)
    assert len(out.read_text().splitlines()) == 4
    assert "| – gain over red, green, blue |" in capsys.readouterr().out
