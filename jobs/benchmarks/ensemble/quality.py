"""Macro-F1 and micro-F1 of every method on the same rows, with paired bootstrap intervals."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jobs.benchmarks.ensemble.baselines import Decisions, Members, methods, targets_of
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from canopy import metrics
from canopy.errors import ConfigError
from canopy.metrics import bootstrap
from canopy.predictions.io import read_members

FIGURES = {"macro_f1": metrics.macro_f1, "micro_f1": metrics.micro_f1}


def shared_file() -> Path:
    """The default file of out-of-fold probabilities.

    Raises:
        ConfigError: when the file does not exist.
    """
    root = Path(os.environ.get("CANOPY_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
    path = root / "planet32" / "oof_probabilities.npz"
    if not path.exists():
        remedy = "Give a FILE.npz, or set CANOPY_SHARED_DATA."
        raise ConfigError("The benchmark's data", "must exist", str(path), remedy)
    return path


def quality(path: Path, few_rows: Sequence[int]) -> list[dict[str, Any]]:
    """Compare all methods, tuned on all folds but one, one fold, or few rows; each row is scored once."""
    members = read_members(path)
    with np.load(path, allow_pickle=False) as arrays:
        fold_N = arrays["fold"]
    folds = [int(fold) for fold in np.unique(fold_N)]
    after = dict(zip(folds, folds[1:] + folds[:1], strict=True))
    tunings = {
        f"{len(folds) - 1} folds": [(fold_N != f, fold_N == f) for f in folds],
        "1 fold": [(fold_N == after[f], fold_N == f) for f in folds],
        **{
            f"{rows} rows": [(random_subset(fold_N == after[f], rows), fold_N == f) for f in folds]
            for rows in few_rows
        },
    }
    records = []
    for tuning, splits in tunings.items():
        decisions, targets = run_methods(members, splits)
        records += compare(tuning, decisions, targets)
    return records


def run_methods(
    members: Members, splits: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]]
) -> tuple[dict[str, list[Decisions]], list[NDArray[np.uint8]]]:
    """Targets and decisions of each method on the second part of each split, tuned on the first."""
    decisions: dict[str, list[Decisions]] = {name: [] for name in methods()}
    targets = []
    for tuned, scored in splits:
        fitting = {name: p.rows(tuned) for name, p in members.items()}
        test = {name: p.rows(scored) for name, p in members.items()}
        for name, method in methods().items():
            decisions[name].append(method(fitting, test))
        targets.append(targets_of(test))
    return decisions, targets


def compare(
    tuning: str, decisions: dict[str, list[Decisions]], targets: list[NDArray[np.uint8]]
) -> list[dict[str, Any]]:
    """Print and return the figures of each method, and Canopy's advantage with paired bootstrap intervals."""
    truth_NK = np.concatenate(targets)
    ours_NK = np.concatenate(decisions["canopy"])
    table = Table(title=f"tuned on {tuning}, {len(truth_NK):,} rows scored: points, ours minus theirs [95%]")
    for column in (
        "method",
        "macro-F1",
        "ours minus it",
        "over splits",
        "micro-F1",
        "ours minus it",
        "over splits",
    ):
        table.add_column(column, justify="left" if column == "method" else "right")
    records = []
    for name, parts in decisions.items():
        theirs_NK = np.concatenate(parts)
        record: dict[str, Any] = {"tuned_on": tuning, "method": name, "rows": len(truth_NK)}
        cells = []
        for figure, statistic in FIGURES.items():
            value = float(statistic(metrics.Counts.of(truth_NK, theirs_NK)))
            gap = bootstrap.paired_difference(
                truth_NK, ours_NK, theirs_NK, statistic=statistic, resamples=2000
            )
            by_split = [
                float(statistic(metrics.Counts.of(t, ours)) - statistic(metrics.Counts.of(t, theirs)))
                for t, ours, theirs in zip(targets, decisions["canopy"], parts, strict=True)
            ]
            record[figure] = value
            record[f"{figure}_gain"] = [gap.value, gap.low, gap.high]
            record[f"{figure}_gain_by_split"] = by_split
            cells += [f"{100 * value:.2f}"]
            cells += [f"{100 * gap.value:+.2f} [{100 * gap.low:+.2f}, {100 * gap.high:+.2f}]"]
            cells += [f"{100 * min(by_split):+.2f} … {100 * max(by_split):+.2f}"]
        if name == "canopy":
            cells[1] = cells[2] = cells[4] = cells[5] = ""
        table.add_row(name, *cells)
        records.append(record)
    Console(width=150).print(table)
    return records


def random_subset(mask_N: NDArray[np.bool_], rows: int) -> NDArray[np.bool_]:
    """A mask of ``rows`` random rows of ``mask_N``."""
    chosen = np.zeros_like(mask_N)
    chosen[np.random.default_rng(0).permutation(np.flatnonzero(mask_N))[:rows]] = True
    return chosen
