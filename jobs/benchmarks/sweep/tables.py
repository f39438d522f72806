"""Tables of the benchmarks of the sweep, from the files of figures alone."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from jobs.benchmarks.ablation.records import Line, Records
from jobs.benchmarks.measurement import median_and_range
from jobs.benchmarks.sweep.setting import DOCS
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table


def table(out: Path = DOCS) -> None:
    """Print the tables of all files of figures in ``out``."""
    for path in sorted(out.glob("quality-*.jsonl")):
        show_quality(Records.open(path))
    for path in sorted(out.glob("members-*.jsonl")):
        show_members(Records.open(path))
    if (out / "overhead.jsonl").exists():
        show_overhead(Records.open(out / "overhead.jsonl"))


def test_scores(records: Records) -> dict[str, dict[int, float]]:
    """Test mAP by point (as text), then by seed."""
    found: dict[str, dict[int, float]] = {}
    for line in records.lines:
        if line["kind"] == "test":
            found.setdefault(str(line["values"]), {})[line["seed"]] = line["test_map"]
    return found


def gains(records: Records) -> dict[str, list[tuple[Line, float]]]:
    """Searches by contender, each with its choice's gain in test mAP over the untouched variant."""
    scores = test_scores(records)
    default = scores.get("{}", {})
    found: dict[str, list[tuple[Line, float]]] = {}
    for line in records.lines:
        own = scores.get(str(line.get("values")), {})
        shared = sorted(set(own) & set(default))
        if line["kind"] == "search" and shared:
            gain = mean(own[seed] - default[seed] for seed in shared)
            found.setdefault(line["contender"], []).append((line, gain))
    return found


def show_quality(records: Records) -> None:
    """Print what each kind of search found, and at which cost."""
    shown = Table(title=records.path.stem)
    for column in ("search", "seeds", "epochs", "seconds", "val mAP", "gain in test mAP (95% over seeds)"):
        shown.add_column(column)
    for contender, lines in gains(records).items():
        own = np.array([gain for _, gain in lines])
        shown.add_row(
            contender,
            str(len(lines)),
            f"{mean(line['epochs'] for line, _ in lines):.1f}",
            f"{mean(line['seconds'] for line, _ in lines):.0f}",
            f"{mean(line['val_map'] for line, _ in lines):.4f}",
            mean_and_interval(own),
        )
    Console(width=130).print(shown)


def show_overhead(records: Records) -> None:
    """Print trials per hour against the plain loop, and the seconds that the sweep adds to a trial."""
    lines = [line for line in records.lines if line["kind"] == "overhead"]
    rates = [line["loop_s"] / line["sweep_s"] for line in lines]
    added = [(line["sweep_s"] - line["loop_s"]) / line["trials"] for line in lines]
    loop = [line["loop_s"] / line["trials"] for line in lines]
    print(f"trials per hour, sweep / plain loop: {median_and_range(rates)}")
    print(f"seconds added to a trial: {median_and_range(added)}")
    print(f"seconds of a trial of the loop: {median_and_range(loop)}")


def show_members(records: Records) -> None:
    """Print the scores of chosen members, and their gain over as many copies of one point, over seeds."""
    lines = [line for line in records.lines if line["kind"] == "members"]
    if not lines:
        return
    ranks = "; ".join(", ".join(str(rank) for rank in line["ranks"]) for line in lines)
    print(f"{lines[0]['count']} members of {lines[0]['trials']} trials; their ranks by score: {ranks}")
    shown = Table(title=records.path.stem)
    columns = ("score on test", "chosen", "best trial, copies", "default, copies")
    for column in (*columns, "gain over best (95% over seeds)", "gain over default"):
        shown.add_column(column)
    for figure in ("macro_f1", "micro_f1", "map"):
        own = {
            name: np.array([line[name][figure] for line in lines]) for name in ("chosen", "best", "default")
        }
        shown.add_row(
            figure,
            *(f"{scores.mean():.4f}" for scores in own.values()),
            *(mean_and_interval(own["chosen"] - own[other]) for other in ("best", "default")),
        )
    Console(width=130).print(shown)


def mean_and_interval(values: NDArray[Any]) -> str:
    """Mean with the 95% interval of the bootstrap over its values."""
    drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{values.mean():+.4f} [{low:+.4f}, {high:+.4f}]"
