from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from canopy.config import EnsembleConfig
from canopy.ensemble.forward_selection import select_forward
from canopy.errors import PredictionsError
from canopy.labels import LabelSet
from canopy.predictions.predictions import Predictions

LABELS = LabelSet(("a", "b", "c"))
ROWS = 900
RATES = np.array([0.4, 0.2, 0.1])


def member(signals_K: list[float], noise: int, rows: int = ROWS) -> Predictions:
    """A member that sees class k with the strength ``signals_K[k]``; equal ``noise`` gives equal errors."""
    rng = np.random.default_rng(0)
    targets_NK = (rng.random((rows, 3)) < RATES).astype(np.uint8)
    errors_NK: NDArray[np.float64] = np.random.default_rng(noise + 1).normal(0, 1, (rows, 3))
    logits_NK = np.array(signals_K) * targets_NK - 2 + errors_NK
    ids_N = np.array([f"chip{n}" for n in range(rows)])
    probs_NK = (1 / (1 + np.exp(-logits_NK))).astype(np.float32)
    return Predictions(ids_N, probs_NK, LABELS, targets_NK=targets_NK)


CONFIG = EnsembleConfig(folds=4, objective="macro_f1", calibration="platt")


def test_members_that_complement_each_other_are_taken_before_the_next_best_alone() -> None:
    """Two copies of the best share its errors; a weaker member with errors of its own adds more."""
    best = member([3.0, 3.0, 3.0], noise=0)
    twin = member([2.98, 2.98, 2.98], noise=0)
    other = member([2.6, 2.6, 2.6], noise=1)
    steps = select_forward({"best": best, "twin": twin, "other": other}, CONFIG, 2)
    assert steps[0].name in {"best", "twin"}
    assert steps[1].name == "other"
    assert steps[1].alone < steps[0].alone
    assert steps[1].together > steps[0].together + 0.02
    assert steps[1].log_loss < steps[0].log_loss


def test_every_member_is_taken_once_and_the_order_is_the_same_again() -> None:
    members = {str(n): member([2.0, 2.0, 2.0], noise=n) for n in range(4)}
    steps = select_forward(members, CONFIG, 4)
    assert sorted(step.name for step in steps) == ["0", "1", "2", "3"]
    assert select_forward(members, CONFIG, 4) == steps


def test_a_configured_combination_is_used() -> None:
    """Averaging ranks and averaging probabilities give different figures."""
    members = {str(n): member([2.0, 2.0, 2.0], noise=n) for n in range(2)}
    mean, ranks = (
        select_forward(members, CONFIG.model_copy(update={"combination": kind}), 2)
        for kind in ("mean", "rank_mean")
    )
    assert mean[0] == ranks[0]
    assert mean[1].log_loss != ranks[1].log_loss
    assert select_forward(members, CONFIG, 2) == mean


def test_too_few_rows_are_refused() -> None:
    few = {"a": member([2.0] * 3, 0, rows=10), "b": member([2.0] * 3, 1, rows=10)}
    with pytest.raises(PredictionsError, match="must hold at least 16 rows"):
        select_forward(few, CONFIG, 2)
