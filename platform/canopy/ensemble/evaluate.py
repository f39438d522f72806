"""Applies a fitted ensemble to the test split and scores it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from canopy import metrics
from canopy.config import EnsembleConfig
from canopy.ensemble.model import Ensemble
from canopy.ensemble.scores import EnsembleScores, StepDecisions, ensemble_scores

MemberArrays = Mapping[str, Sequence[NDArray[np.float32]]]
"""Member name -> its probabilities (N, K), one array per fold model."""


def decide_by_step(ensemble: Ensemble, single: Ensemble, test_probs_by_member: MemberArrays) -> StepDecisions:
    """Decisions (N, K) after each step, from the best single member at 0.5 to the whole ensemble.

    Args:
        ensemble: the fitted ensemble.
        single: an ensemble of the best single member alone, fitted on the same rows.
        test_probs_by_member: raw probabilities of every member that one of the two ensembles reads.
    """
    raw_NK = np.mean([np.asarray(part) for part in test_probs_by_member[single.members[0]]], axis=0)
    probs_NK, decisions_NK = ensemble.predict(test_probs_by_member)
    return StepDecisions(
        single_half=metrics.decide(raw_NK),
        single_tuned=single.predict(test_probs_by_member)[1],
        ensemble_half=metrics.decide(probs_NK),
        ensemble=decisions_NK,
    )


def measured_scores(
    ensemble: Ensemble,
    steps: StepDecisions,
    targets_NK: NDArray[np.uint8],
    probs_NK: NDArray[np.float32],
    config: EnsembleConfig,
) -> EnsembleScores:
    """The scores of an ensemble on the test split, compared with the best single member, tuned and at 0.5.

    Args:
        ensemble: the ensemble whose labels the K columns are.
        steps: decisions from :func:`decide_by_step`.
        targets_NK: targets, 0 and 1.
        probs_NK: the ensemble's probabilities.
        config: resamples and seed of the intervals.
    """
    baselines = {"single_tuned": steps.single_tuned, "single_half": steps.single_half}
    return ensemble_scores(steps, baselines, targets_NK, probs_NK, ensemble.labels, config)
