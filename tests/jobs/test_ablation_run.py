"""A tiny ablation end to end: its lines, its continuation and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jobs.benchmarks.ablation import __main__ as ablation
from jobs.benchmarks.ablation.records import Records
from jobs.benchmarks.ablation.runs import FIGURES
from jobs.benchmarks.ablation.study import section


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_tiny_run_and_its_table(tmp_path: Path) -> None:
    out, page = tmp_path / "generated-tiny.jsonl", tmp_path / "page.md"
    arguments = [
        "--data",
        "generated",
        "--scale",
        "tiny",
        "--out",
        str(out),
        "--cache",
        str(tmp_path / "cache"),
    ]
    run = ["run", *arguments, "--rows", "mixup", "--seeds", "2"]
    assert ablation.main(run) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [n["kind"] for n in lines].count("lr") == 6
    trained = [n for n in lines if n["kind"] == "run" and "of" not in n]
    assert {(n["row"], n["seed"]) for n in trained} == {(r, s) for r in ("baseline", "mixup") for s in (0, 1)}
    assert {n["row"] for n in lines if n["kind"] == "run"} == {
        "baseline",
        "mixup",
        "grid",
        "exact",
        "shrunk",
        "tta",
    }
    for line in trained:
        assert set(line["figures"]) == set(FIGURES)
        assert line["cpu_seconds_per_epoch"] > 0

    assert ablation.main(run) == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == lines, "nothing is done twice"

    page.write_text("# Before\n")
    for _ in range(2):
        assert ablation.main(["table", str(out), "--page", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("# Before\n")
    assert text.count("Mixup") == 1
    assert section(Records.open(out)) in text
