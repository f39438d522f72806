"""The whole fit: what it must not depend on, must refuse and must notice, and how honest it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support import REPOSITORY

from canopy import metrics
from canopy.config import EnsembleConfig
from canopy.ensemble import fit as fit_module
from canopy.ensemble.candidates import KINDS
from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.logistic import sigmoid
from canopy.ensemble.model import Ensemble, decide
from canopy.ensemble.predictions import Predictions
from canopy.errors import DataError, PredictionsError
from canopy.labels import LabelSet
from canopy.metrics import Counts

LABELS = LabelSet(("common", "half", "some", "rare"))
RATES = np.array([0.9, 0.5, 0.2, 0.04])
FAST = EnsembleConfig(folds=3, bags=2, bootstrap=100)
Members = dict[str, Predictions]


def world(rows: int, seed: int = 0, noises: tuple[float, ...] = (1.4, 1.5, 1.6)) -> Members:
    """Members that see the same signal, each through noise of its own."""
    rng = np.random.default_rng(seed)
    bias = np.log(RATES / (1 - RATES)) * 1.6
    signal = 2 * rng.normal(size=(rows, 4)) + bias
    targets = (rng.random((rows, 4)) < sigmoid(signal)).astype(np.uint8)
    ids = np.array([f"{seed}-{n}" for n in range(rows)])
    return {
        f"m{i}": Predictions(
            ids,
            sigmoid(signal + noise * rng.normal(size=(rows, 4))).astype(np.float32),
            LABELS,
            targets_NK=targets,
        )
        for i, noise in enumerate(noises)
    }


def probs(members: Members) -> dict[str, NDArray[np.float32]]:
    return {name: member.probs_NK for name, member in members.items()}


def content(ensemble: Ensemble, tmp_path: Path, name: str) -> Any:
    ensemble.save(tmp_path / name)
    return json.loads((tmp_path / name).read_text())


def value(ensemble: Ensemble, test: Members) -> float:
    counts = Counts.of(test["m0"].targets_NK, ensemble.predict(probs(test))[1])  # type: ignore[arg-type]
    return float(metrics.macro_f1(counts) + metrics.micro_f1(counts)) / 2


@pytest.fixture(scope="module")
def fitted() -> Ensemble:
    return fit_ensemble(world(600), FAST)


def test_row_order_and_member_order_do_not_change_a_bit(fitted: Ensemble, tmp_path: Path) -> None:
    members = world(600)
    order = np.random.default_rng(1).permutation(600)
    shuffled = {name: members[name].rows(order) for name in ("m2", "m0", "m1")}
    assert content(fit_ensemble(shuffled, FAST), tmp_path, "a") == content(fitted, tmp_path, "b")


def test_saved_and_loaded_it_decides_the_same_and_saves_the_same(fitted: Ensemble, tmp_path: Path) -> None:
    before = content(fitted, tmp_path, "a.json")
    loaded = Ensemble.load(tmp_path / "a.json")
    test = probs(world(100, seed=1))
    for ours, theirs in zip(fitted.predict(test), loaded.predict(test), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert content(loaded, tmp_path, "b.json") == before
    assert set(before["thresholds"]) == set(LABELS.names)
    assert before["fitted_on"]["rows"] == 600


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("calibration", ["platt", "isotonic"])
def test_every_combination_round_trips_and_predicts_rows_alone(
    kind: str, calibration: str, tmp_path: Path
) -> None:
    config = EnsembleConfig.model_validate(
        {**FAST.model_dump(), "combination": kind, "calibration": calibration}
    )
    ensemble = fit_ensemble(world(300), config)
    assert ensemble.combination.kind == kind
    ensemble.save(tmp_path / "e.json")
    loaded = Ensemble.load(tmp_path / "e.json")
    test = probs(world(40, seed=2))
    batch_probs, batch = ensemble.predict(test)
    np.testing.assert_array_equal(loaded.predict(test)[0], batch_probs)
    assert batch_probs.min() >= 0
    assert batch_probs.max() <= 1
    for n in range(3):
        alone_probs, alone = loaded.predict({name: p[n : n + 1] for name, p in test.items()})
        np.testing.assert_allclose(alone_probs[0], batch_probs[n], atol=1e-6)
        np.testing.assert_array_equal(alone[0], batch[n])


def test_it_beats_the_best_single_member_and_says_by_how_much(fitted: Ensemble) -> None:
    test = world(6000, seed=3)
    single = fit_ensemble(world(600), FAST.model_copy(update={"combination": "best_single"}))
    assert single.combination.kind == "best_single"
    assert fitted.combination.kind != "best_single"
    assert value(fitted, test) > value(single, test) + 0.005
    assert fitted.estimated["over_best_single"]["micro_f1"]["high"] > 0


def test_estimates_are_honest_over_many_draws() -> None:
    """The nested estimate is near what fresh rows give, on average: no systematic optimism."""
    test = world(20000, seed=99)
    gaps = []
    for seed in range(6):
        ensemble = fit_ensemble(world(300, seed=seed), FAST)
        card = ensemble.estimated
        gaps.append((card["macro_f1"] + card["micro_f1"]) / 2 - value(ensemble, test))
    assert abs(np.mean(gaps)) < 0.02


def test_when_no_combination_helps_the_ensemble_is_the_best_member() -> None:
    members = world(800, noises=(0.0,))
    best = members["m0"]
    rng = np.random.default_rng(0)
    members["m1"] = Predictions(
        best.ids,
        np.clip(best.probs_NK + rng.normal(0, 0.05, best.probs_NK.shape), 0, 1).astype(np.float32),
        LABELS,
        targets_NK=best.targets_NK,
    )
    ensemble = fit_ensemble(members, FAST)
    assert ensemble.members == ("m0",)
    assert "best single member m0" in ensemble.summary
    assert ensemble.weights == {"m0": 1.0, "m1": 0.0}


@pytest.mark.parametrize("combination", ["auto", "greedy", "simplex", "logistic"])
def test_a_useless_member_gets_no_weight(combination: str) -> None:
    members = world(600)
    noise = np.random.default_rng(5).random((600, 4)).astype(np.float32)
    members["noise"] = Predictions(members["m0"].ids, noise, LABELS)
    config = EnsembleConfig.model_validate({**FAST.model_dump(), "combination": combination})
    ensemble = fit_ensemble(members, config)
    assert "noise" not in ensemble.members
    assert ensemble.weights["noise"] == 0
    assert "noise" in ensemble.left_out


def test_identical_members_are_collapsed_before_anything_else(fitted: Ensemble) -> None:
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
    monkeypatch.setattr(fit_module, "REFIT", 2)
    monkeypatch.setattr(fit_module, "CHUNK", 333)
    members = world(2000)
    config = EnsembleConfig(
        folds=3, bags=2, bootstrap=100, search_rows=300, objective="macro_f1", thresholds="exact"
    )
    ensemble = fit_ensemble(members, config)
    assert ensemble.fitted_on["searched_rows"] == 300
    combined, _ = ensemble.predict(probs(members))
    targets = members["m0"].targets_NK
    assert targets is not None
    reached = metrics.per_class_f1(Counts.of(targets, decide(combined, ensemble.thresholds)))
    for k in range(4):
        for cut in np.unique(combined[:, k])[::7]:
            other = Counts.of(targets[:, [k]], metrics.decide(combined[:, [k]], cut))
            assert metrics.per_class_f1(other)[0] <= reached[k] + 1e-9


def test_exclusive_labels_get_exactly_one_decision() -> None:
    config = FAST.model_copy(update={"exclusive": ("half, some, rare",)})
    ensemble = fit_ensemble(world(300), config)
    _, decided = ensemble.predict(probs(world(200, seed=4)))
    assert (decided[:, 1:].sum(axis=1) == 1).all()
    assert ensemble.exclusive == (("half", "some", "rare"),)
    limits = np.array([0.5, 0.5, 0.1], np.float32)
    chosen = decide(np.array([[0.9, 0.55, 0.3]], np.float32), limits, [(1, 2)])
    assert chosen.tolist() == [[1, 0, 1]]  # 0.3 is further over 0.1 than 0.55 over 0.5, in log-odds


def test_fold_models_are_calibrated_one_by_one_and_averaged() -> None:
    members = world(300)
    config = FAST.model_copy(update={"combination": "mean", "calibration": "isotonic"})
    ensemble = fit_ensemble(members, config)
    a, b = probs(world(30, seed=5)), probs(world(30, seed=6))
    mixed, _ = ensemble.predict({name: [a[name], b[name]] for name in a})
    calibrated = [
        (curve.apply(a[name]) + curve.apply(b[name])) / 2
        for name, curve in zip(ensemble.members, ensemble.calibrations, strict=True)
    ]
    expected = ensemble.recalibration.apply(ensemble.combination.apply(calibrated))
    np.testing.assert_allclose(mixed, expected, atol=1e-6)


def test_what_cannot_be_fitted_or_predicted_is_refused() -> None:
    members = world(120)
    bare = {name: Predictions(p.ids, p.probs_NK, LABELS) for name, p in members.items()}
    with pytest.raises(PredictionsError, match="must hold targets"):
        fit_ensemble(bare, FAST)
    with pytest.raises(PredictionsError, match=r"at least 12 rows\. Got: 8"):
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


def test_a_file_that_is_no_ensemble_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"format": "other/1"}')
    for name in ("a.json", "missing.json"):
        with pytest.raises(PredictionsError, match=name.replace(".", r"\.")):
            Ensemble.load(tmp_path / name)


@pytest.mark.parametrize("objective", ["macro_f1", "micro_f1", "mixed", "f2", "cost"])
def test_each_objective_is_the_best_at_what_it_aims_at(objective: str) -> None:
    train, test = world(6000), world(12000, seed=8)
    config = EnsembleConfig.model_validate(
        {**FAST.model_dump(), "combination": "logistic", "calibration": "platt"}
        | {"costs": dict.fromkeys(LABELS.names, (1.0, 8.0))}
    )
    targets = test["m0"].targets_NK
    assert targets is not None

    def reached(aim: str) -> float:
        aimed = config.model_copy(update={"objective": aim})
        decided = fit_ensemble(train, aimed).predict(probs(test))[1]
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
    rivals = {"macro_f1", "micro_f1", "f2"} - {objective}
    assert all(reached(objective) >= reached(rival) - slack for rival in rivals)


def test_the_fitted_ensemble_needs_neither_ray_nor_torch(fitted: Ensemble, tmp_path: Path) -> None:
    fitted.save(tmp_path / "e.json")
    code = (
        "import sys, numpy as np\n"
        "from canopy.ensemble.model import Ensemble\n"
        f"e = Ensemble.load({str(tmp_path / 'e.json')!r})\n"
        "e.predict({name: np.full((2, 4), 0.3, np.float32) for name in e.members})\n"
        "assert not {'ray', 'torch', 'pandas'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(REPOSITORY / "platform")})
