"""The whole fit: invariances, refusals, notes, and unbiased estimates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.ensemble.worlds import FAST, LABELS, Members, content, probs, value, world

from canopy import metrics
from canopy.config import EnsembleConfig
from canopy.ensemble import fit as fit_module
from canopy.ensemble import model as model_module
from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.model import Ensemble, decide
from canopy.errors import DataError, PredictionsError
from canopy.labels import LabelSet
from canopy.metrics import Counts
from canopy.predictions.predictions import Predictions


@pytest.fixture(scope="module")
def fitted() -> Ensemble:
    return fit_ensemble(world(600), FAST)


@pytest.mark.parametrize("objective", ["mixed", "f2"])
def test_row_order_and_member_order_do_not_change_a_bit(objective: str, tmp_path: Path) -> None:
    """Not even with ties (one decimal) and duplicate members."""
    config = FAST.model_copy(update={"objective": objective})
    members = {
        name: Predictions(p.ids, np.round(p.probs_NK, 1), LABELS, targets_NK=p.targets_NK)
        for name, p in world(300).items()
    }
    members["twin"] = members["m1"]
    order = np.random.default_rng(1).permutation(300)
    shuffled = {name: members[name].rows(order) for name in ("twin", "m2", "m0", "m1")}
    whole = content(fit_ensemble(members, config), tmp_path, "a")
    assert content(fit_ensemble(shuffled, config), tmp_path, "b") == whole


def test_it_beats_the_best_single_member_by_an_estimated_margin(fitted: Ensemble) -> None:
    test = world(6000, seed=3)
    single = fit_ensemble(world(600), FAST.model_copy(update={"combination": "best_single"}))
    assert single.combination.kind == "best_single"
    assert fitted.combination.kind != "best_single"
    assert value(fitted, test) > value(single, test) + 0.005
    assert fitted.estimated is not None
    assert fitted.estimated.over["best_single"]["micro_f1"].high > 0


def with_noisy_copy(noise: float) -> Members:
    """One good member, and the same one with added noise, which adds no information."""
    members = world(800, noises=(0.0,))
    best = members["m0"]
    noisy = best.probs_NK + np.random.default_rng(0).normal(0, noise, best.probs_NK.shape)
    members["m1"] = Predictions(best.ids, np.clip(noisy, 0, 1), LABELS, targets_NK=best.targets_NK)
    return members


def test_when_no_combination_helps_the_ensemble_is_the_best_member() -> None:
    members = with_noisy_copy(0.05)
    ensemble = fit_ensemble(members, FAST)
    assert ensemble.members == ("m0",)
    assert ensemble.summary == "best single member m0: no combination beat it in cross-fitting"
    assert ensemble.weights == {"m0": 1.0, "m1": 0.0}
    configured = fit_ensemble(members, FAST.model_copy(update={"combination": "best_single"}))
    assert configured.summary == "best single member m0: as configured"


def test_a_combination_with_all_weight_on_one_member_is_named() -> None:
    alone = fit_ensemble(with_noisy_copy(0.5), FAST.model_copy(update={"combination": "simplex"}))
    assert alone.members == ("m0",)
    assert alone.summary == "best single member m0: simplex gave it all the weight"


@pytest.mark.parametrize("combination", ["auto", "greedy", "simplex", "logistic"])
def test_useless_members_get_no_weight(combination: str) -> None:
    members = world(600)
    like = members["m0"]
    rng = np.random.default_rng(5)
    useless = {
        "noise": rng.random((600, 4)),
        "constant": np.full((600, 4), 0.3),
        "shuffled": like.probs_NK[rng.permutation(600)],  # a good member's probabilities on other rows
        "reversed": 1 - like.probs_NK,
    }
    members |= {name: Predictions(like.ids, p.astype(np.float32), LABELS) for name, p in useless.items()}
    config = EnsembleConfig.model_validate({**FAST.model_dump(), "combination": combination})
    ensemble = fit_ensemble(members, config)
    for name in useless:
        assert name not in ensemble.members
        assert ensemble.weights[name] == 0
        assert ensemble.left_out[name] == "tells nothing"


def test_identical_members_are_collapsed(fitted: Ensemble) -> None:
    members = world(600)
    for name in ("twin_a", "twin_b"):
        members[name] = members["m1"]
    ensemble = fit_ensemble(members, FAST)
    assert ensemble.left_out["twin_a"] == "the same as m1"
    test = probs(world(50, seed=1))
    np.testing.assert_array_equal(ensemble.predict(test)[0], fitted.predict(test)[0])


def test_one_member_one_class_and_classes_of_one_kind_work() -> None:
    members = world(120)
    targets = members["m0"].targets_NK
    assert targets is not None
    targets = targets.copy()
    targets[:, 0], targets[:, 3] = 1, 0
    odd = {name: Predictions(p.ids, p.probs_NK, LABELS, targets_NK=targets) for name, p in members.items()}
    ensemble = fit_ensemble(odd, FAST)
    assert ensemble.thresholds[3] == 0.5
    assert any("rare" in note and "0.5" in note for note in ensemble.notes)
    assert any("no negatives" in note and "common" in note for note in ensemble.notes)
    assert ensemble.predict(probs(odd))[1][:, 0].mean() > 0.9
    single = fit_ensemble({"m0": members["m0"]}, FAST)
    assert "the only member" in single.summary
    narrow = {
        name: Predictions(p.ids, p.probs_NK[:, 1:2], LabelSet(("half",)), targets_NK=p.targets_NK[:, 1:2])  # type: ignore[index]
        for name, p in members.items()
    }
    assert fit_ensemble(narrow, FAST).predict(probs(narrow))[1].shape == (120, 1)


def test_rare_labels_are_named() -> None:
    members = world(120)
    notes = " ".join(fit_ensemble(members, FAST).notes)
    count = int(members["m0"].targets_NK[:, 3].sum())  # type: ignore[index]
    assert 0 < count < 10
    assert f"rare ({count})" in notes


def test_more_rows_than_are_searched_give_exact_thresholds_on_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fit_module, "REFIT_FACTOR", 2)
    monkeypatch.setattr(model_module, "CHUNK", 333)
    members = world(2000)
    config = EnsembleConfig(
        folds=4, bags=2, bootstrap=100, search_rows=300, objective="macro_f1", thresholds="exact"
    )
    ensemble = fit_ensemble(members, config)
    assert ensemble.fitted_on is not None
    assert ensemble.fitted_on.searched_rows == 300
    combined, _ = ensemble.predict(probs(members))
    targets = members["m0"].targets_NK
    assert targets is not None
    reached = metrics.per_class_f1(Counts.of(targets, decide(combined, ensemble.thresholds)))
    for k in range(4):
        for cut in np.unique(combined[:, k])[::7]:
            other = Counts.of(targets[:, [k]], metrics.decide(combined[:, [k]], cut))
            assert metrics.per_class_f1(other)[0] <= reached[k] + 1e-9


def test_data_that_cannot_be_fitted_or_predicted_is_refused() -> None:
    members = world(120)
    bare = {name: Predictions(p.ids, p.probs_NK, LABELS) for name, p in members.items()}
    with pytest.raises(PredictionsError, match="must hold targets"):
        fit_ensemble(bare, FAST)
    with pytest.raises(PredictionsError, match=r"at least 16 rows for 4 folds\. Got: 8"):
        fit_ensemble({name: p.rows(np.arange(8)) for name, p in members.items()}, FAST)
    with pytest.raises(PredictionsError, match=r"'half,common'|'common,half'|half"):
        fit_ensemble(members, FAST.model_copy(update={"exclusive": ("half,common", "half,rare")}))
    with pytest.raises(DataError, match="commno"):
        fit_ensemble(members, FAST.model_copy(update={"objective": "cost", "costs": {"commno": (1.0, 2.0)}}))
    ensemble = fit_ensemble(members, FAST.model_copy(update={"combination": "mean"}))
    good = probs(members)
    with pytest.raises(PredictionsError, match="member 'm1' must be given"):
        ensemble.predict({"m0": good["m0"], "m2": good["m2"]})
    with pytest.raises(PredictionsError, match=r"shape \(N, 4\)"):
        ensemble.predict({**good, "m1": good["m1"][:, :2]})
    with pytest.raises(PredictionsError, match="one shape"):
        ensemble.predict({**good, "m1": good["m1"][:5]})
    broken = good["m1"].copy()
    broken[7, 2] = np.nan
    with pytest.raises(PredictionsError, match="Member 'm1', row 7, label 'some'"):
        ensemble.predict({**good, "m1": broken})


@pytest.mark.parametrize("objective", ["macro_f1", "micro_f1", "mixed", "f2", "cost"])
def test_a_single_label_without_positives_works(objective: str) -> None:
    members = {
        name: Predictions(p.ids, p.probs_NK[:, :1], LabelSet(("x",)), targets_NK=np.zeros((60, 1), np.uint8))
        for name, p in world(60).items()
    }
    ensemble = fit_ensemble(members, FAST.model_copy(update={"objective": objective}))
    assert ensemble.thresholds.tolist() == [0.5]
    assert ensemble.notes == ("no positives to fit on, threshold left at 0.5: x",)


def test_the_floor_is_kept_or_its_breach_is_noted() -> None:
    train, test = world(4000), world(8000, seed=8)
    base = FAST.model_dump() | {"combination": "simplex", "micro_weight": 0.0}
    targets = test["m0"].targets_NK
    assert targets is not None
    reached = {}
    for floor in (None, 0.838, 0.99):
        ensemble = fit_ensemble(train, EnsembleConfig.model_validate(base | {"micro_floor": floor}))
        counts = Counts.of(targets, ensemble.predict(probs(test))[1])
        reached[floor] = float(metrics.macro_f1(counts)), float(metrics.micro_f1(counts))
    assert ensemble.notes[0].endswith("under the floor of 0.99")
    assert reached[None][1] < reached[0.838][1] < reached[0.99][1]
    assert reached[None][0] > reached[0.838][0] > reached[0.99][0]


@pytest.mark.parametrize("objective", ["macro_f1", "micro_f1", "mixed", "f2", "cost"])
def test_each_objective_gives_the_best_value_of_itself(objective: str) -> None:
    train, test = world(6000), world(12000, seed=8)
    config = EnsembleConfig.model_validate(
        {**FAST.model_dump(), "combination": "logistic", "calibration": "platt"}
        | {"costs": dict.fromkeys(LABELS.names, (1.0, 8.0))}
    )
    targets = test["m0"].targets_NK
    assert targets is not None

    def reached(objective_of_fit: str) -> float:
        fitted_for = config.model_copy(update={"objective": objective_of_fit})
        decided = fit_ensemble(train, fitted_for).predict(probs(test))[1]
        counts = Counts.of(targets, decided)
        by_name = {
            "macro_f1": float(metrics.macro_f1(counts)),
            "micro_f1": float(metrics.micro_f1(counts)),
            "f2": float(metrics.per_image_fbeta(targets, decided, 2.0).mean()),
            "cost": -float((counts.fp + 8 * counts.fn).sum()),
        }
        by_name["mixed"] = (by_name["macro_f1"] + by_name["micro_f1"]) / 2
        return by_name[objective]

    slack = {"cost": 100.0}.get(objective, 0.003)
    baselines = {"macro_f1", "micro_f1", "f2"} - {objective}
    assert all(reached(objective) >= reached(baseline) - slack for baseline in baselines)


def test_estimates_are_unbiased_over_many_draws() -> None:
    """On average the nested estimate equals the score on fresh rows."""
    test = world(20000, seed=99)
    gaps = []
    for seed in range(6):
        ensemble = fit_ensemble(world(300, seed=seed), FAST)
        card = ensemble.estimated
        assert card is not None
        gaps.append(((card.macro_f1 or 0) + (card.micro_f1 or 0)) / 2 - value(ensemble, test))
    assert abs(np.mean(gaps)) < 0.02
