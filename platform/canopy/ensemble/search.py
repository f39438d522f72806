"""Cross-fits all candidate combinations and picks one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from canopy import metrics
from canopy.config import CombinationKind, EnsembleConfig
from canopy.ensemble.crossfit import Calibrator, Folds, HeldOutPredictions, Sample, crossfit
from canopy.ensemble.objective import objective_value, per_row_terms
from canopy.ensemble.scores import CandidateScore, EnsembleScores, StepDecisions, ensemble_scores
from canopy.labels import LabelSet
from canopy.metrics import Floats
from canopy.metrics.bootstrap import interval, resampled_sums

THREADED_ROWS = 4096
"""Number of rows from which fits run in threads."""
MAX_THREADS = 4
"""Maximum number of threads: each holds a copy of the sample's members."""
RESAMPLES = 200
"""Number of resamples behind the standard error of a choice."""
Candidates = dict[CombinationKind, HeldOutPredictions]


@dataclass(frozen=True, eq=False)
class Choice:
    """The chosen candidate.

    Args:
        kind: its combination.
        table: cross-fitted figures of every candidate.
    """

    kind: CombinationKind
    table: tuple[CandidateScore, ...]


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The outcome of nested cross-fitting.

    Args:
        sample: the rows on which the candidates were compared.
        choice: the choice over all folds.
        nested: predictions of every row by the whole procedure, the choice included, without that row's fold.
        single: the same for the best single member.
        chosen: combination -> number of outer folds that chose it.
    """

    sample: Sample
    choice: Choice
    nested: HeldOutPredictions
    single: HeldOutPredictions
    chosen: dict[str, int]


def search(
    sample: Sample, calibrator: Calibrator, kinds: tuple[CombinationKind, ...], config: EnsembleConfig
) -> SearchResult:
    """Cross-fit all candidates, choose one, and predict every row with a choice that has not seen it.

    With more than one candidate, the choice is repeated within each outer fold, so that the estimate
    includes the cost of choosing.

    Args:
        sample: the rows to compare on.
        calibrator: calibrations of the sample's members.
        kinds: candidates that may be chosen.
        config: objective, thresholds, bags and seed.
    """
    compared = kinds if "best_single" in kinds else ("best_single", *kinds)
    folds = range(sample.folds)
    fits = _fit_all(
        lambda held_out: crossfit(sample, held_out, calibrator, compared, config),
        [frozenset({j}) for j in folds],
        sample,
    )
    outer = dict(enumerate(fits))
    every = {kind: _assembled(sample, {j: outer[j][kind] for j in outer}) for kind in compared}
    choice = choose(sample, every, kinds, config)
    chosen: dict[int, CombinationKind] = dict.fromkeys(outer, kinds[0])
    if len(kinds) > 1:
        chosen = _inner_choices(sample, calibrator, kinds, config)
    nested = _assembled(sample, {j: outer[j][chosen[j]] for j in outer})
    counts = Counter(str(kind) for kind in chosen.values())
    return SearchResult(sample, choice, nested, every["best_single"], dict(sorted(counts.items())))


def choose(
    sample: Sample,
    candidates: Mapping[CombinationKind, HeldOutPredictions],
    kinds: tuple[CombinationKind, ...],
    config: EnsembleConfig,
    rows: NDArray[np.intp] | None = None,
) -> Choice:
    """The candidate with the least log loss among those whose objective is not clearly behind the best.

    F1 counts are noisy where labels are rare; log loss, each class's divided by that of its base rate, is a
    far more precise measure. So the objective rules out the candidates that are more than one standard error
    (of the paired difference) behind, and log loss decides between the rest. A combination must also beat the
    best single member: by one standard error on log loss, or on the objective while log loss is no worse.

    Args:
        sample: the rows.
        candidates: held-out predictions of each candidate, on ``rows``.
        kinds: the candidates that may be chosen.
        config: the objective.
        rows: positions in the sample; None for all rows.
    """
    targets_NK = sample.targets_NK if rows is None else sample.targets_NK[rows]
    points, draws, losses = {}, {}, {}
    for kind, held in candidates.items():
        per_row = per_row_terms(targets_NK, held.decisions_NK)
        points[kind] = float(objective_value(config, per_row.sum(axis=0, dtype=np.float64), sample.costs_K2))
        sums = resampled_sums(per_row, RESAMPLES, config.seed)
        draws[kind] = objective_value(config, sums, sample.costs_K2)
        losses[kind] = relative_losses(targets_NK, held.probs_NK)
    best = max(kinds, key=lambda kind: points[kind])
    near = [kind for kind in kinds if points[best] - points[kind] <= np.std(draws[best] - draws[kind])]
    taken = min(near, key=lambda kind: losses[kind].mean())
    if "best_single" in kinds:
        gain_N = losses["best_single"] - losses[taken]
        better_loss = gain_N.mean() > gain_N.std() / np.sqrt(len(gain_N))
        lead = points[taken] - points["best_single"]
        better_objective = gain_N.mean() > 0 and lead > np.std(draws[taken] - draws["best_single"])
        taken = taken if better_loss or better_objective else "best_single"
    table = [
        CandidateScore(
            combination=kind,
            objective=points[kind],
            over_best_single=interval(
                points[kind] - points["best_single"], draws[kind] - draws["best_single"]
            ),
            relative_log_loss=float(losses[kind].mean()),
            taken=kind == taken,
        )
        for kind in candidates
    ]
    return Choice(taken, tuple(table))


def relative_losses(targets_NK: NDArray[np.uint8], probs_NK: NDArray[np.float32]) -> Floats:
    """Log loss of each row, every class's divided by the loss of its base rate, mean over classes, (N,)."""
    rate_K = targets_NK.mean(axis=0, dtype=np.float64)
    mixed = np.flatnonzero((rate_K > 0) & (rate_K < 1))
    if not len(mixed):
        return np.zeros(len(targets_NK))
    rate_K = rate_K[mixed]
    base_K = -(rate_K * np.log(rate_K) + (1 - rate_K) * np.log(1 - rate_K))
    probs = np.clip(probs_NK[:, mixed].astype(np.float64), 1e-6, 1 - 1e-6)
    return np.asarray((-np.log(np.where(targets_NK[:, mixed] > 0, probs, 1 - probs)) / base_K).mean(axis=1))


def estimated_scores(result: SearchResult, labels: LabelSet, config: EnsembleConfig) -> EnsembleScores:
    """Cross-fitted scores of the whole procedure, with its lead over the best single member."""
    steps = StepDecisions(
        single_half=result.single.untuned_NK,
        single_tuned=result.single.decisions_NK,
        ensemble_half=metrics.decide(result.nested.probs_NK),
        ensemble=result.nested.decisions_NK,
    )
    return ensemble_scores(
        steps,
        {"best_single": steps.single_tuned},
        result.sample.targets_NK,
        result.nested.probs_NK,
        labels,
        config,
        result.chosen,
    )


def _inner_choices(
    sample: Sample, calibrator: Calibrator, kinds: tuple[CombinationKind, ...], config: EnsembleConfig
) -> dict[int, CombinationKind]:
    """The choice without each outer fold."""
    folds = range(sample.folds)
    pairs = [frozenset({i, j}) for i in folds for j in range(i)]
    fits = _fit_all(lambda held_out: crossfit(sample, held_out, calibrator, kinds, config), pairs, sample)
    by_pair = dict(zip(pairs, fits, strict=True))
    chosen = {}
    for j in folds:
        rows = np.flatnonzero(sample.fold_N != j)
        candidates = {}
        for kind in kinds:
            held = {
                i: _of_fold(sample, by_pair[frozenset({i, j})][kind], frozenset({i, j}), i)
                for i in folds
                if i != j
            }
            candidates[kind] = _assembled(sample, held, rows)
        chosen[j] = choose(sample, candidates, kinds, config, rows).kind
    return chosen


def _fit_all(
    fit: Callable[[Folds], Candidates], held_out: Sequence[Folds], sample: Sample
) -> list[Candidates]:
    """One fit per set of held-out folds, in threads where the sample is large.

    NumPy releases the interpreter's lock in long loops. BLAS keeps to one thread: these products are too
    small to share, and its idle threads busy-wait.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        if len(sample.rows) < THREADED_ROWS:
            return [fit(folds) for folds in held_out]
        with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, MAX_THREADS)) as pool:
            return list(pool.map(fit, held_out))


def _of_fold(sample: Sample, held: HeldOutPredictions, held_out: Folds, fold: int) -> HeldOutPredictions:
    """The rows of one fold among those of several held-out folds."""
    rows = np.flatnonzero(np.isin(sample.fold_N, list(held_out)))
    mine = sample.fold_N[rows] == fold
    return HeldOutPredictions(held.probs_NK[mine], held.decisions_NK[mine], held.untuned_NK[mine])


def _assembled(
    sample: Sample, by_fold: Mapping[int, HeldOutPredictions], rows: NDArray[np.intp] | None = None
) -> HeldOutPredictions:
    """Predictions by fold, put back into the order of the rows."""
    fold_N = sample.fold_N if rows is None else sample.fold_N[rows]
    shape = (len(fold_N), sample.targets_NK.shape[1])
    whole = HeldOutPredictions(
        np.empty(shape, np.float32), np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    )
    for fold, held in by_fold.items():
        rows_N = fold_N == fold
        whole.probs_NK[rows_N] = held.probs_NK
        whole.decisions_NK[rows_N] = held.decisions_NK
        whole.untuned_NK[rows_N] = held.untuned_NK
    return whole
