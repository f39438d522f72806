"""The objective of a sweep: one number per network from its logits on the validation rows.

Where the number depends on thresholds, each row is decided at thresholds that were fitted on the other folds
of the rows: a figure whose thresholds were tuned on the rows that it is measured on favors what is noisy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from canopy import metrics
from canopy.config import EnsembleConfig
from canopy.config.sweep import ObjectiveName
from canopy.ensemble.model import decide
from canopy.ensemble.objective import costs_of, fit_thresholds, objective_value, per_row_terms
from canopy.ensemble.search_inputs import exclusive_groups
from canopy.labels import LabelSet
from canopy.metrics import Floats
from canopy.metrics.bootstrap import resampled_map, resampled_sums

FOLDS = 5
"""Number of folds of the rows in cross-fitting."""


@dataclass(frozen=True)
class Objective:
    """An objective, higher is better.

    Args:
        name: which one; see :class:`canopy.config.SweepConfig`.
        ensemble: the ensemble section: the objective ``ensemble``, and how thresholds are fitted.
        labels: the label set.
    """

    name: ObjectiveName
    ensemble: EnsembleConfig
    labels: LabelSet

    def value(self, targets_NK: NDArray[np.uint8], probs_NK: NDArray[np.float32]) -> float:
        """The objective on all rows.

        Args:
            targets_NK: targets, 0 and 1.
            probs_NK: probabilities.
        """
        if self.name == "map":
            return float(metrics.mean_average_precision(targets_NK, probs_NK))
        sums = self._terms(targets_NK, probs_NK).sum(axis=0, dtype=np.float64)
        return float(objective_value(self._config(), sums, costs_of(self.ensemble, self.labels)))

    def resampled(
        self, targets_NK: NDArray[np.uint8], probs_NK: NDArray[np.float32], resamples: int
    ) -> Floats:
        """The objective on bootstrap resamples of the rows, shape (B,), paired between networks.

        Args:
            targets_NK: targets, 0 and 1.
            probs_NK: probabilities.
            resamples: number B of resamples.
        """
        if self.name == "map":
            return resampled_map(targets_NK, probs_NK, resamples)
        sums_BS = resampled_sums(self._terms(targets_NK, probs_NK), resamples)
        return np.asarray(objective_value(self._config(), sums_BS, costs_of(self.ensemble, self.labels)))

    def _config(self) -> EnsembleConfig:
        match self.name:
            case "ensemble" | "map":
                return self.ensemble
            case "macro_f1":
                return EnsembleConfig(objective="macro_f1", thresholds=self.ensemble.thresholds)
            case _:
                assert_never(self.name)

    def _terms(self, targets_NK: NDArray[np.uint8], probs_NK: NDArray[np.float32]) -> NDArray[np.float32]:
        """Terms of the objective per row at cross-fitted thresholds, shape (N, 3 K + 2)."""
        groups = exclusive_groups(self.ensemble, self.labels) if self.name == "ensemble" else ()
        costs_K2 = costs_of(self.ensemble, self.labels)
        decisions_NK = crossfit_decisions(targets_NK, probs_NK, self._config(), costs_K2, groups)
        return per_row_terms(targets_NK, decisions_NK)


def crossfit_decisions(
    targets_NK: NDArray[np.uint8],
    probs_NK: NDArray[np.float32],
    config: EnsembleConfig,
    costs_K2: Floats,
    groups: Sequence[Sequence[int]] = (),
) -> NDArray[np.uint8]:
    """Decisions (N, K) of each row at thresholds fitted without the row's fold.

    Args:
        targets_NK: targets, 0 and 1.
        probs_NK: probabilities.
        config: objective and rule of the thresholds.
        costs_K2: cost of a false positive and of a false negative of each class.
        groups: columns of each exclusive group.
    """
    folds = min(FOLDS, len(probs_NK))
    fold_N = np.random.default_rng(len(probs_NK)).permutation(len(probs_NK)) % max(folds, 1)
    decisions_NK = np.zeros(probs_NK.shape, np.uint8)
    for fold in range(folds):
        held = fold_N == fold
        thresholds_K = fit_thresholds(probs_NK[~held], targets_NK[~held], config, costs_K2)
        decisions_NK[held] = decide(probs_NK[held], thresholds_K, groups)
    return decisions_NK
