"""Exact thresholds equal brute force over all cut-points, ties included, for every objective."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from canopy import metrics
from canopy.config import EnsembleConfig
from canopy.ensemble import thresholds as cuts
from canopy.ensemble.objective import fit_thresholds, row_sums, value
from canopy.ensemble.samples_f2 import best_f2
from canopy.ensemble.threshold_curves import NEVER, Curve, exact_curve
from canopy.metrics import Counts

Arrays = tuple[NDArray[np.float32], NDArray[np.uint8]]


def draw(seed: int, rows: int, classes: int = 1, ties: bool = False) -> Arrays:
    rng = np.random.default_rng(seed)
    targets_NK = (rng.random((rows, classes)) < 0.35).astype(np.uint8)
    probs_NK = np.clip(rng.normal(0.3 + 0.3 * targets_NK, 0.25), 0, 1).astype(np.float32)
    return np.round(probs_NK, 1) if ties else probs_NK, targets_NK


def all_cuts(scores_N: NDArray[np.float32]) -> list[float]:
    return [NEVER, *np.unique(scores_N).tolist()]


def curves_of(probs_NK: NDArray[np.float32], targets_NK: NDArray[np.uint8]) -> list[Curve]:
    return [exact_curve(probs_NK[:, k], targets_NK[:, k]) for k in range(targets_NK.shape[1])]


def limits(curves: list[Curve], chosen: NDArray[np.intp]) -> NDArray[np.float32]:
    return np.array([curve.cuts[cut] for curve, cut in zip(curves, chosen, strict=True)], np.float32)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_best_f1_equals_brute_force(seed: int, ties: bool) -> None:
    probs_NK, targets_NK = draw(seed, 3 + 7 * seed, ties=ties)
    curve = exact_curve(probs_NK[:, 0], targets_NK[:, 0])
    best = limits([curve], cuts.best_macro_f1([curve]))[0]
    brute = max(
        f1_score(targets_NK[:, 0], probs_NK[:, 0] >= np.float32(cut), zero_division=0)
        for cut in all_cuts(probs_NK)
    )
    reached = f1_score(targets_NK[:, 0], metrics.decide(probs_NK, best)[:, 0], zero_division=0)
    assert reached == pytest.approx(brute, abs=1e-12)
    assert curve.f1.max() == pytest.approx(brute, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_curve_counts_are_those_of_its_cuts(seed: int) -> None:
    probs_NK, targets_NK = draw(seed, 60, ties=seed % 2 == 0)
    for blend in (0.0, 0.4, 1.0):
        curve = exact_curve(probs_NK[:, 0], targets_NK[:, 0], blend)
        soft = (1 - blend) * targets_NK[:, 0] + blend * probs_NK[:, 0]
        for cut, tp, predicted in zip(curve.cuts, curve.tp, curve.predicted, strict=True):
            above = probs_NK[:, 0] >= cut
            assert tp == pytest.approx(soft[above].sum(), abs=1e-5)
            assert predicted == above.sum()
        assert curve.positives == pytest.approx(soft.sum(), abs=1e-5)


def test_cuts_between_neighboring_floats_do_not_move() -> None:
    high = np.nextafter(np.float32(0.5), np.float32(1))
    curve = exact_curve(np.array([0.5, high], np.float32), np.array([0, 1]))
    assert curve.cuts[1] == high


@pytest.mark.parametrize("seed", range(6))
def test_best_micro_f1_equals_brute_force_over_all_joint_cuts(seed: int) -> None:
    probs_NK, targets_NK = draw(seed, 9, classes=3, ties=True)
    curves = curves_of(probs_NK, targets_NK)
    ours = metrics.micro_f1(
        Counts.of(targets_NK, metrics.decide(probs_NK, limits(curves, cuts.best_micro_f1(curves))))
    )
    brute = max(
        float(metrics.micro_f1(Counts.of(targets_NK, metrics.decide(probs_NK, np.array(joint)))))
        for joint in itertools.product(*(all_cuts(probs_NK[:, k]) for k in range(3)))
    )
    assert ours == pytest.approx(brute, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_mix_and_floor_come_near_brute_force_and_keep_the_floor(seed: int) -> None:
    probs_NK, targets_NK = draw(seed + 20, 12, classes=3, ties=True)
    curves = curves_of(probs_NK, targets_NK)
    both = []
    for joint in itertools.product(*(range(len(curve.cuts)) for curve in curves)):
        chosen = np.array(joint)
        both.append((cuts.macro_f1(curves, chosen), cuts.micro_f1(curves, chosen)))
    mixed = cuts.best_mix(curves, 0.5)
    best = max(macro + micro for macro, micro in both)
    assert cuts.macro_f1(curves, mixed) + cuts.micro_f1(curves, mixed) >= best - 1e-9
    lowest = cuts.micro_f1(curves, cuts.best_macro_f1(curves))
    for share in (0.3, 0.7, 1.0):  # floors that bind
        floor = lowest + share * (max(micro for _, micro in both) - lowest) - 1e-9
        held = cuts.best_mix(curves, 0.0, floor)
        assert cuts.micro_f1(curves, held) >= floor
        assert cuts.macro_f1(curves, held) >= max(macro for macro, micro in both if micro >= floor) - 0.01


def test_a_floor_out_of_reach_gives_the_best_micro_f1() -> None:
    probs_NK, targets_NK = draw(0, 50, classes=3)
    curves = curves_of(probs_NK, targets_NK)
    out = cuts.best_mix(curves, 0.0, 0.999)
    assert cuts.micro_f1(curves, out) == cuts.micro_f1(curves, cuts.best_micro_f1(curves))


@pytest.mark.parametrize("seed", range(4))
def test_least_cost_equals_brute_force(seed: int) -> None:
    probs_NK, targets_NK = draw(seed, 40, classes=2)
    costs_K2 = np.array([[1.0, 5.0], [3.0, 1.0]])
    config = EnsembleConfig(objective="cost", thresholds="exact")
    found = fit_thresholds(probs_NK, targets_NK, config, costs_K2)

    def cost(k: int, cut: float) -> float:
        counts = Counts.of(targets_NK[:, [k]], metrics.decide(probs_NK[:, [k]], cut))
        return float(costs_K2[k, 0] * counts.fp[0] + costs_K2[k, 1] * counts.fn[0])

    for k in range(2):
        assert cost(k, found[k]) == min(cost(k, cut) for cut in all_cuts(probs_NK[:, k]))


@pytest.mark.parametrize("seed", range(4))
def test_image_f2_cannot_be_bettered_by_moving_one_threshold(seed: int) -> None:
    probs_NK, targets_NK = draw(seed, 60, classes=4, ties=seed % 2 == 0)
    found = best_f2(probs_NK, targets_NK, np.zeros(4))

    def reached(at: NDArray[np.float32]) -> float:
        return float(metrics.per_image_fbeta(targets_NK, metrics.decide(probs_NK, at), 2.0).mean())

    for k in range(4):
        for cut in all_cuts(probs_NK[:, k]):
            moved = found.copy()
            moved[k] = cut
            assert reached(moved) <= reached(found) + 1e-12
    assert reached(found) >= reached(np.full(4, 0.2, np.float32))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("objective", ["mixed", "macro_f1", "micro_f1", "f2", "cost"])
def test_one_threshold_for_all_equals_brute_force(objective: str, ties: bool) -> None:
    costs_K2 = np.array([[1.0, 5.0], [3.0, 1.0], [0.0, 1.0]])
    config = EnsembleConfig.model_validate({"thresholds": "global", "objective": objective})

    def reached(probs_NK: NDArray[np.float32], targets_NK: NDArray[np.uint8], limit: float) -> float:
        sums = row_sums(targets_NK, metrics.decide(probs_NK, limit)).sum(axis=0, dtype=np.float64)
        return float(value(config, sums, costs_K2))

    for seed in range(6):
        probs_NK, targets_NK = draw(seed, 25, classes=3, ties=ties)
        found = fit_thresholds(probs_NK, targets_NK, config, costs_K2)
        assert len(set(found.tolist())) == 1
        brute = max(reached(probs_NK, targets_NK, cut) for cut in all_cuts(probs_NK))
        assert reached(probs_NK, targets_NK, float(found[0])) == pytest.approx(brute, abs=1e-9)


def test_plug_in_rule_is_half_the_best_expected_f1() -> None:
    rng = np.random.default_rng(0)
    probs_N = rng.beta(0.6, 3, 4000).astype(np.float32)
    curve = exact_curve(probs_N, np.zeros(4000), blend=1.0)
    best = int(np.argmax(curve.f1))
    assert curve.cuts[best] == pytest.approx(curve.f1[best] / 2, abs=2e-3)


def test_shrinking_goes_from_the_labels_to_the_plug_in_rule() -> None:
    rng = np.random.default_rng(1)
    probs_NK = rng.beta(0.6, 3, (3000, 1)).astype(np.float32)
    few = np.zeros((3000, 1), np.uint8)
    few[np.argsort(probs_NK[:, 0])[[5, 2990]]] = 1  # two odd positives would make an absurd exact threshold
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
    targets_NK[:, 0], targets_NK[:, 1] = 0, 1  # never and always there
    config = EnsembleConfig.model_validate({"thresholds": rule, "objective": objective})
    found = fit_thresholds(probs_NK, targets_NK, config, np.ones((3, 2)))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    if rule not in {"half", "global"}:
        assert found[0] == 0.5


def test_a_label_without_positives_has_its_false_alarms_counted_at_its_own_threshold() -> None:
    """Many rows of it lie over 0.5 come what may: micro-F1 of the rest must be weighed beside them."""
    probs_NK, targets_NK = draw(4, 200, classes=2)
    targets_NK[:, 1] = 0
    probs_NK[:150, 1] = 0.9
    for name in ("exact", "shrunk"):
        config = EnsembleConfig.model_validate({"objective": "micro_f1", "thresholds": name})
        found = fit_thresholds(probs_NK, targets_NK, config, np.ones((2, 2)))
        assert found[1] == 0.5
        if name == "exact":
            reached = [
                float(metrics.micro_f1(Counts.of(targets_NK, metrics.decide(probs_NK, np.array([cut, 0.5])))))
                for cut in [*all_cuts(probs_NK[:, 0]), float(found[0])]
            ]
            assert reached[-1] == max(reached)
