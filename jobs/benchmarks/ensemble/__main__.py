"""The ensemble beside what one would use instead, on the same rows, and its speed.

``python jobs/benchmarks/ensemble quality [FILE.npz]`` tunes on some folds and scores on others;
``python jobs/benchmarks/ensemble speed`` times thresholds and the whole search on a million rows.
The file holds ``image_name``, ``classes``, ``fold``, ``y`` and ``p_<member>`` arrays (out-of-fold
probabilities); without one, ``planet32/oof_probabilities.npz`` under ``$CANOPY_SHARED_DATA`` is read.

Rivals: the best single member at 0.5 and on the usual grid (0.1 to 0.9 by 0.05, per class); the plain mean
on that grid; scikit-learn's stacking (logistic regression on the members' probabilities) at 0.5 and with
its own tuned thresholds; AutoGluon's weighted ensemble selection with its own threshold calibration, where
``autogluon.core`` can be imported (``pip install --no-deps --target DIR autogluon.core autogluon.common
autogluon.features`` and PYTHONPATH=DIR are enough).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import TunedThresholdClassifierCV

from canopy import metrics
from canopy.config import EnsembleConfig
from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.threshold_curves import exact_curve
from canopy.ensemble.thresholds import best_macro_f1
from canopy.errors import ConfigError
from canopy.labels import LabelSet
from canopy.metrics import bootstrap
from canopy.predictions.io import Predictions, read_members

Members = dict[str, Predictions]
Decisions = NDArray[np.uint8]
Method = Callable[[Members, Members], Decisions]
GRID = np.arange(0.1, 0.9001, 0.05)
FIGURES = {"macro_f1": metrics.macro_f1, "micro_f1": metrics.micro_f1}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the two benchmarks; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    quality_parser = commands.add_parser("quality", help="macro-F1 and micro-F1 beside the rivals'")
    quality_parser.add_argument("file", nargs="?", help="npz of out-of-fold probabilities")
    quality_parser.add_argument("--rows", type=int, nargs="*", default=[500], help="also tune on so few rows")
    quality_parser.add_argument("--out", help="append the figures to this JSON-lines file")
    speed_parser = commands.add_parser("speed", help="thresholds and the whole search")
    speed_parser.add_argument("--rows", type=int, default=1_000_000)
    speed_parser.add_argument("--members", type=int, default=10)
    args = parser.parse_args(argv)
    match args.command:
        case "quality":
            records = quality(Path(args.file) if args.file else shared_file(), args.rows)
            if args.out:
                with Path(args.out).open("a") as stream:
                    stream.writelines(json.dumps(record) + "\n" for record in records)
        case "speed":
            speed(args.rows, args.members)
    return 0


def shared_file() -> Path:
    """The shared file of real out-of-fold probabilities.

    Raises:
        ConfigError: when it is not there.
    """
    root = Path(os.environ.get("CANOPY_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = root / "planet32" / "oof_probabilities.npz"
    if not path.exists():
        remedy = "Give a FILE.npz, or set CANOPY_SHARED_DATA."
        raise ConfigError("The benchmark's data", "must exist", str(path), remedy)
    return path


def quality(path: Path, few_rows: Sequence[int]) -> list[dict[str, Any]]:
    """Compare on three ways to tune: all folds but one, one fold, a few rows; each row is scored once."""
    members = read_members(path)
    with np.load(path, allow_pickle=False) as arrays:
        fold_N = arrays["fold"]
    folds = [int(fold) for fold in np.unique(fold_N)]
    after = dict(zip(folds, folds[1:] + folds[:1], strict=True))
    tunings = {
        f"{len(folds) - 1} folds": [(fold_N != f, fold_N == f) for f in folds],
        "1 fold": [(fold_N == after[f], fold_N == f) for f in folds],
        **{
            f"{rows} rows": [(_some(fold_N == after[f], rows), fold_N == f) for f in folds]
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
    """Every method's decisions on the second part of each split, fitted on the first."""
    decisions: dict[str, list[Decisions]] = {name: [] for name in methods()}
    targets = []
    for tuned, scored in splits:
        fitting = {name: p.rows(tuned) for name, p in members.items()}
        test = {name: p.rows(scored) for name, p in members.items()}
        for name, method in methods().items():
            decisions[name].append(method(fitting, test))
        targets.append(_truth(test))
    return decisions, targets


def compare(
    tuning: str, decisions: dict[str, list[Decisions]], targets: list[NDArray[np.uint8]]
) -> list[dict[str, Any]]:
    """Print and return each method's figures over all scored rows, and ours minus it, by paired bootstrap."""
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


def methods() -> dict[str, Method]:
    """Ours with its defaults, then the rivals, each with the tuning that is its own."""
    out: dict[str, Method] = {
        "canopy": canopy_default,
        "best single at 0.5": lambda fitting, test: single(fitting, test, tuned=False),
        "best single, grid": lambda fitting, test: single(fitting, test, tuned=True),
        "plain mean, grid": plain_mean,
        "scikit-learn stacking at 0.5": lambda fitting, test: sklearn_stacking(fitting, test, tuned=False),
        "scikit-learn stacking, tuned": lambda fitting, test: sklearn_stacking(fitting, test, tuned=True),
    }
    if importlib.util.find_spec("autogluon") and importlib.util.find_spec("autogluon.core"):
        out["AutoGluon selection"] = autogluon_selection
    else:
        print("AutoGluon is left out: autogluon.core is not installed", file=sys.stderr)
    return out


def canopy_default(fitting: Members, test: Members) -> Decisions:
    """The product, with nothing but its defaults."""
    ensemble = fit_ensemble(fitting, EnsembleConfig(bootstrap=100))
    return ensemble.predict({name: p.probs_NK for name, p in test.items()})[1]


def single(fitting: Members, test: Members, tuned: bool) -> Decisions:
    """The member with the highest sum of macro-F1 and micro-F1 on the fitting rows, at its thresholds."""
    best, best_limits, best_value = "", np.array(0.5), -1.0
    for name, member in fitting.items():
        limits = grid_thresholds(member.probs_NK, _truth(fitting)) if tuned else np.array(0.5)
        counts = metrics.Counts.of(_truth(fitting), metrics.decide(member.probs_NK, limits))
        value = float(metrics.macro_f1(counts) + metrics.micro_f1(counts))
        if value > best_value:
            best, best_limits, best_value = name, limits, value
    return metrics.decide(test[best].probs_NK, best_limits)


def plain_mean(fitting: Members, test: Members) -> Decisions:
    """The mean of all members, thresholds from the grid."""
    limits = grid_thresholds(_mean(fitting), _truth(fitting))
    return metrics.decide(_mean(test), limits)


def grid_thresholds(probs_NK: NDArray[np.float32], targets_NK: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Per class the threshold of the grid with the highest F1, shape (K,)."""
    f1_TK = np.stack(
        [metrics.per_class_f1(metrics.Counts.of(targets_NK, metrics.decide(probs_NK, t))) for t in GRID]
    )
    return np.asarray(GRID[np.nan_to_num(f1_TK).argmax(axis=0)])


def sklearn_stacking(fitting: Members, test: Members, tuned: bool) -> Decisions:
    """Per label a logistic regression on the members' probabilities, as StackingClassifier fits it."""
    targets_NK = _truth(fitting)
    names = sorted(fitting)
    decided = []
    for k in range(targets_NK.shape[1]):
        x_NM = np.stack([fitting[name].probs_NK[:, k] for name in names], axis=1)
        new_NM = np.stack([test[name].probs_NK[:, k] for name in names], axis=1)
        positives = int(targets_NK[:, k].sum())
        model: Any = LogisticRegression(max_iter=1000)
        if tuned and positives >= 5:  # its cross-validation needs a positive in every fold
            model = TunedThresholdClassifierCV(model, scoring="f1", cv=5)
        if positives in {0, len(targets_NK)}:
            decided.append(np.full(len(new_NM), positives > 0, np.uint8))
            continue
        decided.append(model.fit(x_NM, targets_NK[:, k]).predict(new_NM).astype(np.uint8))
    return np.stack(decided, axis=1)


def autogluon_selection(fitting: Members, test: Members) -> Decisions:
    """Per label AutoGluon's own EnsembleSelection for F1 and its own calibrated decision threshold."""
    calibrate = importlib.import_module("autogluon.core.calibrate").calibrate_decision_threshold
    f1 = importlib.import_module("autogluon.core.metrics").f1
    greedy = importlib.import_module("autogluon.core.models.greedy_ensemble.ensemble_selection")
    targets_NK = _truth(fitting)
    names = sorted(fitting)
    decided = []
    for k in range(targets_NK.shape[1]):
        truth_N = targets_NK[:, k].astype(int)
        columns = [fitting[name].probs_NK[:, k].astype(np.float64) for name in names]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            selection = greedy.EnsembleSelection(ensemble_size=25, problem_type="binary", metric=f1)
            selection.fit(columns, truth_N)
            mixed_N = np.asarray(selection.predict_proba(columns))
            limit = calibrate(y=truth_N, y_pred_proba=mixed_N, metric=f1, verbose=False)
        new = [test[name].probs_NK[:, k].astype(np.float64) for name in names]
        decided.append((np.asarray(selection.predict_proba(new)) > limit).astype(np.uint8))
    return np.stack(decided, axis=1)


def speed(rows: int, members: int) -> None:
    """Time exact thresholds against the usual loop, then the whole default search, with its memory."""
    for size in (8000, rows):
        probs_NK, targets_NK = synthetic(size, 17, 1)
        exact_s, loop_s = paired_thresholds(probs_NK[0], targets_NK)
        print(
            f"{size:>9,} rows x 17: exact thresholds {exact_s:.3f} s, f1_score on the grid {loop_s:.1f} s "
            f"({loop_s / exact_s:,.0f} times as long)"
        )
    probs_MNK, targets_NK = synthetic(rows, 17, members)
    ids = np.array([f"row{n:09d}" for n in range(rows)])
    labels = LabelSet(tuple(f"label{k}" for k in range(17)))
    given = {f"m{m}": Predictions(ids, p, labels, targets_NK=targets_NK) for m, p in enumerate(probs_MNK)}
    start = time.perf_counter()
    ensemble = fit_ensemble(given, EnsembleConfig())
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / sum(p.nbytes for p in probs_MNK)
    print(
        f"{rows:>9,} rows x 17 x {members}: whole default search {seconds:.1f} s, peak memory of the process "
        f"{peak:.2f} times the input; {ensemble.summary}"
    )


def paired_thresholds(probs_NK: NDArray[np.float32], targets_NK: NDArray[np.uint8]) -> tuple[float, float]:
    """Seconds for the exact thresholds of all classes, and for the loop over f1_score on the coarse grid.

    Where the loop would take minutes, two classes are timed and the time is scaled to all.
    """
    classes = targets_NK.shape[1]
    exact = []
    for _ in range(3):
        start = time.perf_counter()
        best_macro_f1([exact_curve(probs_NK[:, k], targets_NK[:, k]) for k in range(classes)])
        exact.append(time.perf_counter() - start)
    timed = classes if len(probs_NK) <= 100_000 else 2
    start = time.perf_counter()
    for k in range(timed):
        for limit in GRID:
            f1_score(targets_NK[:, k], probs_NK[:, k] > limit, zero_division=0)
    return min(exact), (time.perf_counter() - start) * classes / timed


def synthetic(rows: int, classes: int, members: int) -> tuple[list[NDArray[np.float32]], NDArray[np.uint8]]:
    """Members' probabilities and targets with a long tail of label frequencies."""
    rng = np.random.default_rng(0)
    bias_K = np.linspace(2.5, -7, classes, dtype=np.float32)
    signal_NK = 2 * rng.standard_normal((rows, classes), np.float32) + bias_K
    targets_NK = (rng.random((rows, classes), np.float32) < 1 / (1 + np.exp(-signal_NK))).astype(np.uint8)
    probs = []
    for m in range(members):
        noise_NK = rng.standard_normal((rows, classes), np.float32)
        heard_NK = signal_NK + np.float32(1 + 0.2 * m) * noise_NK
        probs.append((1 / (1 + np.exp(-heard_NK))).astype(np.float32))
    return probs, np.asarray(targets_NK, np.uint8)


def _some(mask_N: NDArray[np.bool_], rows: int) -> NDArray[np.bool_]:
    chosen = np.zeros_like(mask_N)
    chosen[np.random.default_rng(0).permutation(np.flatnonzero(mask_N))[:rows]] = True
    return chosen


def _truth(members: Members) -> NDArray[np.uint8]:
    targets_NK = next(iter(members.values())).targets_NK
    assert targets_NK is not None
    return targets_NK


def _mean(members: Members) -> NDArray[np.float32]:
    mean_NK: NDArray[np.float32] = np.mean([p.probs_NK for p in members.values()], axis=0, dtype=np.float32)
    return mean_NK


if __name__ == "__main__":
    sys.exit(main())
