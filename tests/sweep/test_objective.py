from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score

from canopy.config import EnsembleConfig
from canopy.config.sweep import ObjectiveName
from canopy.labels import LabelSet
from canopy.sweep.objective import Objective, crossfit_decisions
from canopy.train.logits import best_f1

LABELS = LabelSet(("forest", "river", "road"))
RATES = np.array([0.5, 0.2, 0.05])


def draw(seed: int, rows: int = 800, signal: float = 2.0) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    targets_NK = (rng.random((rows, 3)) < RATES).astype(np.uint8)
    logits_NK = rng.normal(0, 1, (rows, 3)) + signal * targets_NK + np.log(RATES / (1 - RATES))
    return targets_NK, (1 / (1 + np.exp(-logits_NK))).astype(np.float32)


def objective(name: ObjectiveName, config: EnsembleConfig | None = None) -> Objective:
    return Objective(name, config or EnsembleConfig(), LABELS)


def test_map_is_that_of_scikit_learn() -> None:
    targets_NK, probs_NK = draw(0)
    expected = average_precision_score(targets_NK, probs_NK, average="macro")
    assert objective("map").value(targets_NK, probs_NK) == pytest.approx(expected)


def test_macro_f1_is_that_of_the_crossfitted_decisions() -> None:
    targets_NK, probs_NK = draw(0)
    config = EnsembleConfig(objective="macro_f1")
    decisions_NK = crossfit_decisions(targets_NK, probs_NK, config, np.ones((3, 2)))
    expected = f1_score(targets_NK, decisions_NK, average="macro")
    assert objective("macro_f1").value(targets_NK, probs_NK) == pytest.approx(expected, abs=1e-6)


def test_thresholds_are_not_tuned_on_the_rows_that_they_are_measured_on() -> None:
    """Without any signal, thresholds tuned on the same rows of a rare class still seem to find something."""
    rng = np.random.default_rng(0)
    exact = EnsembleConfig(objective="macro_f1", thresholds="exact")
    own, held = [], []
    for _ in range(20):
        targets_NK = (rng.random((200, 3)) < 0.05).astype(np.uint8)
        probs_NK = rng.random((200, 3)).astype(np.float32)
        held.append(objective("macro_f1", exact).value(targets_NK, probs_NK))
        own.append(np.nanmean(best_f1(targets_NK, probs_NK)))
    assert np.mean(own) > np.mean(held) + 0.05


@pytest.mark.parametrize("name", ["map", "macro_f1", "ensemble"])
def test_a_better_network_has_a_higher_objective_on_paired_rows(name: ObjectiveName) -> None:
    targets_NK, good_NK = draw(0, signal=3.0)
    _, poor_NK = draw(0, signal=1.0)
    found = objective(name)
    assert found.value(targets_NK, good_NK) > found.value(targets_NK, poor_NK)
    good_B, poor_B = (found.resampled(targets_NK, probs, 200) for probs in (good_NK, poor_NK))
    assert np.mean(good_B) == pytest.approx(found.value(targets_NK, good_NK), abs=0.01)
    assert (good_B > poor_B).mean() > 0.95


def test_the_ensembles_objective_is_its_own() -> None:
    targets_NK, probs_NK = draw(0)
    macro, micro = (objective("ensemble", EnsembleConfig(objective=one)) for one in ("macro_f1", "micro_f1"))
    assert macro.value(targets_NK, probs_NK) == pytest.approx(
        objective("macro_f1").value(targets_NK, probs_NK)
    )
    assert micro.value(targets_NK, probs_NK) != macro.value(targets_NK, probs_NK)


def test_few_rows_have_fewer_folds() -> None:
    targets_NK, probs_NK = draw(0, rows=3)
    decisions_NK = crossfit_decisions(targets_NK, probs_NK, EnsembleConfig(), np.ones((3, 2)))
    assert decisions_NK.shape == (3, 3)
