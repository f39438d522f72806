"""Which candidate to take, by what each said of rows that it was not fitted on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from canopy import metrics
from canopy.config import CombinationKind, EnsembleConfig
from canopy.ensemble.crossfit import Calibrator, HeldOut, Left, Sample, crossfit
from canopy.ensemble.objective import row_sums, value
from canopy.labels import LabelSet
from canopy.metrics import Floats, bootstrap

LARGE = 4096
"""From this many rows on, fits are spread over threads."""
THREADS = 4
"""Most of them: each holds a copy of the sample's members."""
RESAMPLES = 200
"""Behind the standard error of a choice."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """The candidate taken, and each candidate's figures."""

    kind: CombinationKind
    table: tuple[dict[str, Any], ...]


@dataclass(frozen=True, eq=False)
class Search:
    """What nested cross-fitting found.

    Args:
        sample: the rows it looked at.
        verdict: over all folds.
        nested: for every row of the sample, what the whole procedure said without having seen it.
        single: the same for the best single member.
        chosen: how often each candidate was taken in the outer folds.
    """

    sample: Sample
    verdict: Verdict
    nested: HeldOut
    single: HeldOut
    chosen: dict[str, int]


def search(
    sample: Sample, calibrator: Calibrator, kinds: tuple[CombinationKind, ...], config: EnsembleConfig
) -> Search:
    """Cross-fit all candidates, choose among them, and estimate what the choice gives.

    With more than one candidate to choose from, the choice itself is repeated within each outer
    fold, so that the estimate pays for it.
    """
    compared = kinds if "best_single" in kinds else ("best_single", *kinds)
    lefts = [frozenset({j}) for j in range(sample.folds)]
    outer = dict(
        enumerate(_each(lambda left: crossfit(sample, left, calibrator, compared, config), lefts, sample))
    )
    every = {kind: _assembled(sample, {j: outer[j][kind] for j in outer}) for kind in compared}
    verdict = choose(sample, every, kinds, config)
    taken: dict[int, CombinationKind] = dict.fromkeys(outer, kinds[0])
    if len(kinds) > 1:
        taken = _inner_choices(sample, calibrator, kinds, config)
    nested = _assembled(sample, {j: outer[j][taken[j]] for j in outer})
    counts = {kind: list(taken.values()).count(kind) for kind in sorted(set(taken.values()))}
    return Search(sample, verdict, nested, every["best_single"], {str(k): v for k, v in counts.items()})


def choose(
    sample: Sample,
    candidates: Mapping[CombinationKind, HeldOut],
    kinds: tuple[CombinationKind, ...],
    config: EnsembleConfig,
    rows: NDArray[np.intp] | None = None,
) -> Verdict:
    """The candidate with the least log loss among those whose objective chance cannot tell from the best.

    F1 counts are noisy where labels are rare; log loss, each class's relative to its base rate, is a far
    sharper instrument. So the objective rules out what is more than one standard error (of the paired
    difference) behind, and log loss decides between the rest. The burden of proof is on combinations: one is
    taken only if it beats the best single member by one standard error on log loss, or on the objective while
    not losing on log loss.

    Args:
        sample: the rows.
        candidates: held-out probabilities and decisions of each, on ``rows``.
        kinds: those that may be taken.
        config: the objective.
        rows: positions in the sample; None for all.
    """
    targets_NK = sample.targets_NK if rows is None else sample.targets_NK[rows]
    points, draws, losses = {}, {}, {}
    for kind, held in candidates.items():
        per_row = row_sums(targets_NK, held.decisions_NK)
        points[kind] = float(value(config, per_row.sum(axis=0, dtype=np.float64), sample.costs_K2))
        sums = bootstrap.resampled_sums(per_row, RESAMPLES, config.seed)
        draws[kind] = value(config, sums, sample.costs_K2)
        losses[kind] = relative_losses(targets_NK, held.probs_NK)
    best = max(kinds, key=lambda kind: points[kind])
    open_ = [kind for kind in kinds if points[best] - points[kind] <= np.std(draws[best] - draws[kind])]
    taken = min(open_, key=lambda kind: losses[kind].mean())
    if "best_single" in kinds:
        gain_N = losses["best_single"] - losses[taken]
        sharper = gain_N.mean() > gain_N.std() / np.sqrt(len(gain_N))
        lead = points[taken] - points["best_single"]
        ahead = gain_N.mean() > 0 and lead > np.std(draws[taken] - draws["best_single"])
        taken = taken if sharper or ahead else "best_single"
    single = bootstrap.interval
    table = [
        {
            "combination": kind,
            "objective": points[kind],
            "over_best_single": _span(
                single(points[kind] - points["best_single"], draws[kind] - draws["best_single"])
            ),
            "relative_log_loss": float(losses[kind].mean()),
            "taken": kind == taken,
        }
        for kind in candidates
    ]
    return Verdict(taken, tuple(bootstrap.plain_json(table)))


def relative_losses(targets_NK: NDArray[np.uint8], probs_NK: NDArray[np.float32]) -> Floats:
    """Log loss of each row, every class's divided by the loss of its base rate, mean over classes, (N,)."""
    rate_K = targets_NK.mean(axis=0, dtype=np.float64)
    known = np.flatnonzero((rate_K > 0) & (rate_K < 1))
    if not len(known):
        return np.zeros(len(targets_NK))
    rate_K = rate_K[known]
    base_K = -(rate_K * np.log(rate_K) + (1 - rate_K) * np.log(1 - rate_K))
    probs = np.clip(probs_NK[:, known].astype(np.float64), 1e-6, 1 - 1e-6)
    return np.asarray((-np.log(np.where(targets_NK[:, known] > 0, probs, 1 - probs)) / base_K).mean(axis=1))


def score_card(
    sample: Sample, held: HeldOut, single: HeldOut, labels: LabelSet, config: EnsembleConfig
) -> dict[str, Any]:
    """Cross-fitted figures of the procedure, with the paired difference to the best single member.

    And the figures at 0.5 and each class's F1 after each step, as :func:`canopy.ensemble.from_files.measure` gives
    them for the test split.
    """
    card = bootstrap.score(
        sample.targets_NK,
        held.decisions_NK,
        held.probs_NK,
        labels,
        bootstrap=config.bootstrap,
        seed=config.seed,
    )
    half_NK = metrics.decide(held.probs_NK)
    card["at_half"] = bootstrap.decision_scores(
        sample.targets_NK, half_NK, labels, config.bootstrap, config.seed
    )
    card["over_best_single"] = {
        name: _span(
            bootstrap.paired_difference(
                sample.targets_NK,
                held.decisions_NK,
                single.decisions_NK,
                statistic=statistic,
                resamples=config.bootstrap,
                seed=config.seed,
            )
        )
        for name, statistic in (("macro_f1", metrics.macro_f1), ("micro_f1", metrics.micro_f1))
    }
    steps = {
        "single_half": single.untuned_NK,
        "single_tuned": single.decisions_NK,
        "ensemble_half": half_NK,
        "ensemble": held.decisions_NK,
    }
    card["steps"] = f1_by_step(sample.targets_NK, steps, labels)
    plain: dict[str, Any] = bootstrap.plain_json(card)
    return plain


def f1_by_step(
    targets_NK: NDArray[np.uint8], steps: Mapping[str, NDArray[np.uint8]], labels: LabelSet
) -> dict[str, dict[str, float]]:
    """F1 by step and label from each step's decisions (N, K); NaN where a label has no positives."""
    counts = {name: metrics.Counts.of(targets_NK, decided_NK) for name, decided_NK in steps.items()}
    return {
        name: dict(zip(labels.names, metrics.per_class_f1(of_step).tolist(), strict=True))
        for name, of_step in counts.items()
    }


def _inner_choices(
    sample: Sample, calibrator: Calibrator, kinds: tuple[CombinationKind, ...], config: EnsembleConfig
) -> dict[int, CombinationKind]:
    """What would have been chosen without each outer fold."""
    folds = range(sample.folds)
    lefts = [frozenset({i, j}) for i in folds for j in range(i)]
    found = _each(lambda left: crossfit(sample, left, calibrator, kinds, config), lefts, sample)
    pairs = dict(zip(lefts, found, strict=True))
    taken = {}
    for j in folds:
        rows = np.flatnonzero(sample.fold_N != j)
        parts = {}
        for kind in kinds:
            held = {
                i: _of_fold(sample, pairs[frozenset({i, j})][kind], frozenset({i, j}), i)
                for i in folds
                if i != j
            }
            parts[kind] = _assembled(sample, held, rows)
        taken[j] = choose(sample, parts, kinds, config, rows).kind
    return taken


def _each(
    fit: Callable[[Left], dict[CombinationKind, HeldOut]], lefts: Sequence[Left], sample: Sample
) -> list[dict[CombinationKind, HeldOut]]:
    """All fits, one per thread where they are large: numpy lets go of the interpreter's lock in long loops.

    BLAS keeps to one thread: these products are too slim to share, and its threads wait by spinning.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        if len(sample.rows) < LARGE:
            return [fit(left) for left in lefts]
        with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, THREADS)) as pool:
            return list(pool.map(fit, lefts))


def _of_fold(sample: Sample, held: HeldOut, left: Left, fold: int) -> HeldOut:
    rows = np.flatnonzero(np.isin(sample.fold_N, list(left)))
    mine = sample.fold_N[rows] == fold
    return HeldOut(held.probs_NK[mine], held.decisions_NK[mine], held.untuned_NK[mine])


def _assembled(
    sample: Sample, by_fold: Mapping[int, HeldOut], rows: NDArray[np.intp] | None = None
) -> HeldOut:
    """Parts by fold put back into the order of the rows."""
    fold_N = sample.fold_N if rows is None else sample.fold_N[rows]
    shape = (len(fold_N), sample.targets_NK.shape[1])
    whole = HeldOut(np.empty(shape, np.float32), np.empty(shape, np.uint8), np.empty(shape, np.uint8))
    for fold, held in by_fold.items():
        rows_N = fold_N == fold
        whole.probs_NK[rows_N] = held.probs_NK
        whole.decisions_NK[rows_N] = held.decisions_NK
        whole.untuned_NK[rows_N] = held.untuned_NK
    return whole


def _span(found: bootstrap.Interval) -> dict[str, float]:
    return {"value": found.value, "low": found.low, "high": found.high}
