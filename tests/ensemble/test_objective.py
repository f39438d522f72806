"""Every objective and threshold rule against brute force, with classes of one kind."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.ensemble.draws import all_thresholds, draw

from canopy import metrics
from canopy.config import EnsembleConfig
from canopy.ensemble.objective import costs_of, fit_thresholds, objective_value, per_row_terms
from canopy.errors import DataError
from canopy.labels import LabelSet
from canopy.metrics import Counts


@pytest.mark.parametrize("seed", range(4))
def test_least_cost_equals_brute_force(seed: int) -> None:
    probs_NK, targets_NK = draw(seed, 40, classes=2)
    costs_K2 = np.array([[1.0, 5.0], [3.0, 1.0]])
    config = EnsembleConfig(objective="cost", thresholds="exact")
    found = fit_thresholds(probs_NK, targets_NK, config, costs_K2)

    def cost(k: int, threshold: float) -> float:
        counts = Counts.of(targets_NK[:, [k]], metrics.decide(probs_NK[:, [k]], threshold))
        return float(costs_K2[k, 0] * counts.fp[0] + costs_K2[k, 1] * counts.fn[0])

    for k in range(2):
        assert cost(k, found[k]) == min(cost(k, threshold) for threshold in all_thresholds(probs_NK[:, k]))


def test_a_cost_of_an_unknown_label_names_the_option() -> None:
    config = EnsembleConfig(objective="cost", costs={"road": (1.0, 5.0)})
    assert costs_of(config, LabelSet(("mine", "road"))).tolist() == [[1, 1], [1, 5]]
    with pytest.raises(DataError, match=r"^ensemble\.costs must name labels of the data\. Got: road\. "):
        costs_of(config, LabelSet(("mine",)))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("objective", ["mixed", "macro_f1", "micro_f1", "f2", "cost"])
def test_one_threshold_for_all_equals_brute_force(objective: str, ties: bool) -> None:
    costs_K2 = np.array([[1.0, 5.0], [3.0, 1.0], [0.0, 1.0]])
    config = EnsembleConfig.model_validate({"thresholds": "global", "objective": objective})

    def reached(probs_NK: NDArray[np.float32], targets_NK: NDArray[np.uint8], threshold: float) -> float:
        sums = per_row_terms(targets_NK, metrics.decide(probs_NK, threshold)).sum(axis=0, dtype=np.float64)
        return float(objective_value(config, sums, costs_K2))

    for seed in range(6):
        probs_NK, targets_NK = draw(seed, 25, classes=3, ties=ties)
        found = fit_thresholds(probs_NK, targets_NK, config, costs_K2)
        assert len(set(found.tolist())) == 1
        brute = max(reached(probs_NK, targets_NK, threshold) for threshold in all_thresholds(probs_NK))
        assert reached(probs_NK, targets_NK, float(found[0])) == pytest.approx(brute, abs=1e-9)


def test_shrinking_goes_from_the_labels_to_the_plug_in_rule() -> None:
    rng = np.random.default_rng(1)
    probs_NK = rng.beta(0.6, 3, (3000, 1)).astype(np.float32)
    few = np.zeros((3000, 1), np.uint8)
    few[np.argsort(probs_NK[:, 0])[[5, 2990]]] = 1  # with two odd positives the exact threshold is absurd
    costs_K2 = np.ones((1, 2))

    def rule(name: str) -> float:
        config = EnsembleConfig(objective="macro_f1", thresholds=name)  # type: ignore[arg-type]
        return float(fit_thresholds(probs_NK, few, config, costs_K2)[0])

    assert abs(rule("shrunk") - rule("plug_in")) < 0.1 * abs(rule("exact") - rule("plug_in"))
    many = (rng.random((3000, 1)) < probs_NK).astype(np.uint8)
    assert many.sum() > 400
    exact, shrunk = (
        fit_thresholds(probs_NK, many, EnsembleConfig(objective="macro_f1", thresholds=name), costs_K2)
        for name in ("exact", "shrunk")
    )
    assert abs(float(exact[0] - shrunk[0])) < 0.08


@pytest.mark.parametrize("rule", ["half", "global", "exact", "shrunk", "plug_in"])
@pytest.mark.parametrize("objective", ["mixed", "macro_f1", "micro_f1", "f2", "cost"])
def test_every_rule_serves_every_objective_with_odd_classes(rule: str, objective: str) -> None:
    probs_NK, targets_NK = draw(2, 80, classes=3)
    targets_NK[:, 0], targets_NK[:, 1] = 0, 1  # never and always positive
    config = EnsembleConfig.model_validate({"thresholds": rule, "objective": objective})
    found = fit_thresholds(probs_NK, targets_NK, config, np.ones((3, 2)))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    if rule not in {"half", "global"}:
        assert found[0] == 0.5


def test_false_positives_of_a_label_without_positives_count() -> None:
    """Many of its rows lie above 0.5; micro-F1 of the other labels must count them."""
    probs_NK, targets_NK = draw(4, 200, classes=2)
    targets_NK[:, 1] = 0
    probs_NK[:150, 1] = 0.9
    for name in ("exact", "shrunk"):
        config = EnsembleConfig.model_validate({"objective": "micro_f1", "thresholds": name})
        found = fit_thresholds(probs_NK, targets_NK, config, np.ones((2, 2)))
        assert found[1] == 0.5
        if name == "exact":
            reached = [
                float(
                    metrics.micro_f1(
                        Counts.of(targets_NK, metrics.decide(probs_NK, np.array([threshold, 0.5])))
                    )
                )
                for threshold in [*all_thresholds(probs_NK[:, 0]), float(found[0])]
            ]
            assert reached[-1] == max(reached)
