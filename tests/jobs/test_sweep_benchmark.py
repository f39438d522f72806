"""The tables of the sweep's benchmarks, from figures alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jobs.benchmarks.ablation.records import Records
from jobs.benchmarks.sweep.__main__ import main
from jobs.benchmarks.sweep.tables import gains

SEARCHES: list[dict[str, Any]] = [
    {"values": {"optim.lr": 0.1}, "contender": "TPE", "seed": 0},
    {"values": {"optim.lr": 0.2}, "contender": "TPE", "seed": 1},
    {"values": {}, "contender": "grid", "seed": 0},
    {"values": {"optim.lr": 0.9}, "contender": "grid", "seed": 1},
]
SCORES = {"{}": (0.5, 0.6), "{'optim.lr': 0.1}": (0.52, 0.64), "{'optim.lr': 0.2}": (0.5, 0.6)}


def fill(folder: Path) -> Records:
    records = Records.open(folder / "quality-generated.jsonl")
    for line in SEARCHES:
        records.add({"kind": "search", "epochs": 18, "seconds": 9.0, "val_map": 0.6, "trials": 9, **line})
    for values, scores in zip(({}, {"optim.lr": 0.1}, {"optim.lr": 0.2}), SCORES.values(), strict=True):
        for seed, score in enumerate(scores):
            records.add({"kind": "test", "values": values, "seed": seed, "test_map": score})
    return records


def test_gains_are_paired_over_seeds_and_wait_for_test_scores(tmp_path: Path) -> None:
    found = gains(fill(tmp_path))
    assert [gain for _, gain in found["TPE"]] == pytest.approx([0.03, 0.0])
    assert [gain for _, gain in found["grid"]] == [0.0], "a choice without test scores is left out"


def test_the_tables_need_no_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path)
    overhead = Records.open(tmp_path / "overhead.jsonl")
    for sweep_s in (10.0, 12.0):
        overhead.add({"kind": "overhead", "trials": 4, "epochs": 8, "sweep_s": sweep_s, "loop_s": 8.0})
    assert main(["table", "--out", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "+0.0150" in output
    assert "trials per hour, sweep / plain loop: 0.73 [0.67, 0.80]" in output
    assert "seconds added to a trial: 0.75 [0.50, 1.00]" in output


def test_the_table_of_members_pairs_the_ensembles_of_each_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = Records.open(tmp_path / "members-generated.jsonl")
    for chosen, best in ((0.62, 0.60), (0.64, 0.63)):
        scores = {"chosen": chosen, "best": best, "default": 0.5}
        ensembles = {
            name: dict.fromkeys(("macro_f1", "micro_f1", "map"), own) for name, own in scores.items()
        }
        records.add({"kind": "members", "count": 2, "trials": 9, "seed": 0, "ranks": [1, 5], **ensembles})
    assert main(["table", "--out", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "2 members of 9 trials; their ranks by score: 1, 5; 1, 5" in output
    assert "+0.0150 [+0.0100, +0.0200]" in output
