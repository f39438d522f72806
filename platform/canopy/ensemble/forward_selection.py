"""Forward selection: which few of many members make the best ensemble together (Caruana et al. 2004).

The first member is the best alone. Each further one is that whose ensemble with those before it scores best
on rows that neither calibration, combination nor thresholds were fitted on. A member is taken once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from canopy.config import CombinationKind, EnsembleConfig
from canopy.ensemble.crossfit import Calibrator, Folds, Sample, crossfit_calibrated
from canopy.ensemble.objective import objective_value, per_row_terms
from canopy.ensemble.search import RESAMPLES, relative_losses
from canopy.ensemble.search_inputs import sample_rows, targets_of
from canopy.metrics import Floats
from canopy.metrics.bootstrap import resampled_sums
from canopy.predictions.predictions import Predictions


@dataclass(frozen=True)
class SelectionStep:
    """A member that was taken."""

    name: str
    """The member."""
    alone: float
    """Cross-fitted objective of the member alone."""
    together: float
    """Cross-fitted objective of the ensemble of this member and those before it."""
    log_loss: float
    """Log loss of that ensemble, divided by that of the base rates; lower is better."""


@dataclass(frozen=True, eq=False)
class _Score:
    """An ensemble on held-out rows: objective, the same on resampled rows (B,), relative log loss."""

    objective: float
    resampled_B: Floats
    log_loss: float


def select_forward(
    members: Mapping[str, Predictions], config: EnsembleConfig, count: int
) -> list[SelectionStep]:
    """The ``count`` members that make the best ensemble together, in the order in which they were taken.

    Ensembles are compared as :func:`canopy.ensemble.search.choose` compares combinations: those that are at
    most one standard error behind the best on the objective, then the least log loss. With the combination
    ``auto`` the members are averaged, which adds no noise of fitted weights.

    Args:
        members: name -> predictions of the same rows in the same order, with targets.
        config: objective, calibration, combination, thresholds and folds.
        count: number of members to take; at most ``len(members)``.

    Raises:
        PredictionsError: when there are too few rows for the folds.
    """
    assert count <= len(members), "more members than there are"
    names = list(members)
    sample = sample_rows(members, targets_of(members, config), config, config.search_rows)
    kind: CombinationKind = "mean" if config.combination == "auto" else config.combination
    if kind == "best_single":
        kind = "mean"  # the best single member is no ensemble
    with threadpool_limits(limits=1, user_api="blas"):
        pool = _Pool(sample, config, kind)
        alone = [pool.score([m]) for m in range(len(names))]
        taken: list[int] = []
        steps = []
        while len(taken) < count:
            left = [m for m in range(len(names)) if m not in taken]
            scores = {m: pool.score([*taken, m]) if taken else alone[m] for m in left}
            best = _best(scores)
            taken.append(best)
            found = scores[best]
            steps.append(SelectionStep(names[best], alone[best].objective, found.objective, found.log_loss))
    return steps


def _best(scores: Mapping[int, _Score]) -> int:
    """The key of the ensemble with the least log loss among those close to the best objective."""
    top = max(scores.values(), key=lambda score: score.objective)
    near = {
        m: score
        for m, score in scores.items()
        if top.objective - score.objective <= np.std(top.resampled_B - score.resampled_B)
    }
    return min(near, key=lambda m: near[m].log_loss)


class _Pool:
    """All members, calibrated once for each held-out fold.

    Args:
        sample: the rows with all members.
        config: objective, calibration and thresholds.
        kind: how members are combined.
    """

    def __init__(self, sample: Sample, config: EnsembleConfig, kind: CombinationKind) -> None:
        self.sample, self.config, self.kind = sample, config, kind
        calibrator = Calibrator(sample, config)
        folds: list[Folds] = [frozenset({fold}) for fold in range(sample.folds)]
        self.calibrated = {held_out: calibrator.apply(sample, held_out)[0] for held_out in folds}

    def score(self, members: Sequence[int]) -> _Score:
        """The ensemble of ``members`` on rows that it was not fitted on."""
        sample, chosen = self.sample, list(members)
        decisions_NK = np.empty(sample.targets_NK.shape, np.uint8)
        probs_NK: NDArray[np.float32] = np.empty(sample.targets_NK.shape, np.float32)
        kind: CombinationKind = "best_single" if len(chosen) == 1 else self.kind
        for held_out, calibrated_MNK in self.calibrated.items():
            parts = calibrated_MNK[chosen], sample.members_MNK[chosen]
            held = crossfit_calibrated(sample, held_out, *parts, (kind,), self.config)[kind]
            rows_N = np.isin(sample.fold_N, list(held_out))
            decisions_NK[rows_N], probs_NK[rows_N] = held.decisions_NK, held.probs_NK
        terms_NT = per_row_terms(sample.targets_NK, decisions_NK)
        point = objective_value(self.config, terms_NT.sum(axis=0, dtype=np.float64), sample.costs_K2)
        sums_BT = resampled_sums(terms_NT, RESAMPLES, self.config.seed)
        resampled_B = np.asarray(objective_value(self.config, sums_BT, sample.costs_K2))
        loss = float(relative_losses(sample.targets_NK, probs_NK).mean())
        return _Score(float(point), resampled_B, loss)
