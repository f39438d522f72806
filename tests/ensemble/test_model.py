"""The fitted ensemble: predictions, its file, the refusal of damaged files, and imports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.ensemble.worlds import FAST, LABELS, content, probs, world
from tests.support import REPOSITORY

from canopy.config import EnsembleConfig
from canopy.ensemble.combination import COMBINATION_KINDS
from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.model import Ensemble, decide, to_json
from canopy.errors import PredictionsError


@pytest.fixture(scope="module")
def fitted() -> Ensemble:
    return fit_ensemble(world(600), FAST)


def test_saved_and_loaded_it_decides_the_same_and_saves_the_same(fitted: Ensemble, tmp_path: Path) -> None:
    before = content(fitted, tmp_path, "a.json")
    loaded = Ensemble.load(tmp_path / "a.json")
    test = probs(world(100, seed=1))
    for ours, theirs in zip(fitted.predict(test), loaded.predict(test), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert content(loaded, tmp_path, "b.json") == before
    assert set(before["thresholds"]) == set(LABELS.names)
    assert before["fitted_on"]["rows"] == 600
    lines = (tmp_path / "a.json").read_text().splitlines()
    assert ' "labels": ["common", "half", "some", "rare"],' in lines  # lists stand on one line, for readers


@pytest.mark.parametrize("kind", COMBINATION_KINDS)
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
        np.testing.assert_array_equal(alone_probs[0], batch_probs[n])
        np.testing.assert_array_equal(alone[0], batch[n])


def test_exclusive_labels_get_exactly_one_decision() -> None:
    config = FAST.model_copy(update={"exclusive": ("half, some, rare",)})
    ensemble = fit_ensemble(world(300), config)
    _, decided = ensemble.predict(probs(world(200, seed=4)))
    assert (decided[:, 1:].sum(axis=1) == 1).all()
    assert ensemble.exclusive == (("half", "some", "rare"),)
    thresholds = np.array([0.5, 0.5, 0.1], np.float32)
    chosen = decide(np.array([[0.9, 0.55, 0.3]], np.float32), thresholds, [(1, 2)])
    assert chosen.tolist() == [[1, 0, 1]]  # in log-odds, 0.3 is further above 0.1 than 0.55 above 0.5


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


def test_predict_takes_numbers_of_any_kind_and_no_rows() -> None:
    config = FAST.model_copy(update={"combination": "logistic_two_level", "calibration": "isotonic"})
    ensemble = fit_ensemble(world(120), config)
    half = {name: p.astype(np.float16) for name, p in probs(world(30, seed=1)).items()}
    single = ensemble.predict({name: p.astype(np.float32) for name, p in half.items()})
    for given in (half, {name: p.astype(np.float64) for name, p in half.items()}):
        for ours, theirs in zip(ensemble.predict(given), single, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    certain = ensemble.predict({name: (p > 0.5).astype(np.int64) for name, p in half.items()})[0]
    assert np.isfinite(certain).all()
    nothing = ensemble.predict({name: p[:0] for name, p in half.items()})
    assert [part.shape for part in nothing] == [(0, 4), (0, 4)]
    with pytest.raises(PredictionsError, match="an empty list"):
        ensemble.predict({**half, ensemble.members[0]: []})
    with pytest.raises(PredictionsError, match="must hold numbers"):
        ensemble.predict({**half, ensemble.members[0]: np.full((30, 4), "x")})


def test_a_file_that_is_no_ensemble_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"format": "other/1"}')
    good = json.loads(
        json.dumps(to_json(fit_ensemble(world(60), FAST.model_copy(update={"combination": "mean"}))))
    )
    del good["thresholds"]["rare"]
    (tmp_path / "b.json").write_text(json.dumps(good))
    for name in ("a.json", "b.json", "missing.json"):
        with pytest.raises(PredictionsError, match=name.replace(".", r"\.")):
            Ensemble.load(tmp_path / name)


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


Damage = Callable[[dict[str, Any]], object]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "no format": (lambda c: c.pop("format"), "must be of format"),
    "no labels": (lambda c: c.pop("labels"), "labels must be present"),
    "empty labels": (lambda c: c.update(labels=[]), "labels must hold at least one name"),
    "a repeated label": (lambda c: c["labels"].__setitem__(0, "half"), "labels must hold"),
    "a number as label": (lambda c: c["labels"].__setitem__(0, 1), r"labels\[0\] must be text"),
    "labels in another order": (lambda c: c["labels"].reverse(), "thresholds must hold the 4 expected names"),
    "a renamed label": (lambda c: c["labels"].__setitem__(0, "commno"), "thresholds must hold"),
    "labels as text": (lambda c: c.update(labels="common"), "labels must be a list"),
    "no members": (lambda c: c.update(members=[]), "members must hold at least one name"),
    "a member less": (lambda c: c["members"].pop(), "calibration must hold the 2 expected names"),
    "members in another order": (lambda c: c["members"].reverse(), "calibration must hold"),
    "a repeated member": (lambda c: c.update(members=["m0", "m0", "m2"]), "members must hold"),
    "a null threshold": (lambda c: c["thresholds"].update(rare=None), r"thresholds\.rare must be"),
    "a NaN threshold": (lambda c: c["thresholds"].update(rare=float("nan")), "Got: the number NaN"),
    "an infinite threshold": (lambda c: c["thresholds"].update(rare=float("inf")), "the number Infinity"),
    "a negative threshold": (lambda c: c["thresholds"].update(rare=-0.1), r"rare must be .* in \[0, 2\]"),
    "a huge threshold": (lambda c: c["thresholds"].update(rare=2.5), r"rare must be .* in \[0, 2\]"),
    "a threshold as text": (
        lambda c: c["thresholds"].update(rare="0.5"),
        r"thresholds\.rare must be",
    ),
    "a threshold as truth": (
        lambda c: c["thresholds"].update(rare=True),
        r"thresholds\.rare must be",
    ),
    "a threshold less": (lambda c: c["thresholds"].pop("rare"), "thresholds must hold the 4 expected names"),
    "a threshold more": (lambda c: c["thresholds"].update(other=0.5), "thresholds must hold"),
    "no thresholds": (lambda c: c.update(thresholds=None), "thresholds must be an object"),
    "an unknown combination": (
        lambda c: c["combination"].update(kind="best"),
        r"kind must be one of best_single",
    ),
    "another space": (lambda c: c["combination"].update(space="logit"), r"space must be probability for"),
    "an unknown space": (
        lambda c: c["combination"].update(space="odds"),
        r"space must be one of",
    ),
    "a member without weight": (
        lambda c: c["combination"]["weights"].pop("m1"),
        r"weights must hold",
    ),
    "a label without weight": (
        lambda c: c["combination"]["weights"]["m1"].pop("some"),
        r"combination\.weights\.m1 must hold",
    ),
    "a null weight": (
        lambda c: c["combination"]["weights"]["m1"].update(some=None),
        r"m1\.some must",
    ),
    "weights beyond 1": (lambda c: c["combination"]["weights"]["m1"].update(some=3.0), "add up to 1"),
    "a negative weight": (lambda c: c["combination"]["weights"]["m1"].update(some=-0.2), "at least 0"),
    "a null bias": (lambda c: c["combination"]["bias"].update(some=None), r"bias\.some must be a finite"),
    "a level that the kind lacks": (
        lambda c: c["combination"].update(level2=[[1.0]]),
        "level2 must be null",
    ),
    "no level": (lambda c: c["combination"].pop("level1"), r"combination\.level1 must be present"),
    "an unknown calibration": (lambda c: c["calibration"]["m0"].update(kind="x"), r"m0\.kind must be one of"),
    "another calibration": (lambda c: c["calibration"]["m0"].update(kind="isotonic"), "must be an object"),
    "a NaN calibration": (
        lambda c: c["calibration"]["m0"]["by_label"].update(rare=[float("nan"), 1.0, 0.0]),
        "Got: the number NaN",
    ),
    "a null coefficient": (
        lambda c: c["calibration"]["m0"]["by_label"].update(rare=[None, 1.0, 0.0]),
        r"calibration\.m0\.by_label\.rare must be an array of finite numbers of shape \(3\)",
    ),
    "a coefficient less": (lambda c: c["calibration"]["m0"]["by_label"]["rare"].pop(), r"shape \(3\)"),
    "a falling curve": (
        lambda c: c["calibration"]["m0"]["by_label"].update(rare=[-1.0, 1.0, 0.0]),
        "two slopes above 0",
    ),
    "a curve less": (lambda c: c["calibration"]["m0"]["by_label"].pop("rare"), r"m0\.by_label must hold"),
    "no calibration of a member": (lambda c: c["calibration"].pop("m1"), "calibration must hold"),
    "no recalibration": (lambda c: c.pop("recalibration"), "recalibration must be present"),
    "a huge recalibration": (
        lambda c: c["recalibration"]["by_label"].update(rare=[1e400, 1.0, 0.0]),
        "Got: the number Infinity",
    ),
    "a group with an unknown label": (lambda c: c.update(exclusive=[["half", "x"]]), "exclusive must hold"),
    "a group of one": (lambda c: c.update(exclusive=[["half"]]), "exclusive must hold groups of two"),
    "overlapping groups": (
        lambda c: c.update(exclusive=[["half", "some"], ["half", "rare"]]),
        "each label in one group only",
    ),
    "a summary that is no text": (lambda c: c.update(summary=1), "summary must be text"),
    "notes that are no list": (lambda c: c.update(notes="none"), "notes must be a list"),
    "negative rows": (lambda c: c["fitted_on"].update(rows=-1), r"fitted_on\.rows must be a whole number"),
    "a hash of other length": (lambda c: c["fitted_on"].update(hash="abc"), "16 hexadecimal digits"),
    "more positives than rows": (
        lambda c: c["fitted_on"]["positives"].update(rare=10**6),
        r"\.rare must",
    ),
    "an estimate beyond 1": (lambda c: c["estimated"].update(macro_f1=1.2), r"estimated\.macro_f1 must be"),
    "an estimate less": (lambda c: c["estimated"].pop("steps"), r"estimated\.steps must be present"),
    "measured as a list": (lambda c: c.update(measured=[]), "measured must be an object"),
    "a member in and out": (lambda c: c.update(left_out={"m0": "no weight"}), "must hold no member"),
    "a search without kinds": (
        lambda c: c["search"][0].update(combination=None),
        r"search\[0\]",
    ),
}


@pytest.fixture(scope="module")
def content_of_mean() -> str:
    config = FAST.model_copy(update={"combination": "mean", "calibration": "platt"})
    return json.dumps(to_json(fit_ensemble(world(120), config)))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_refused_in_one_line_that_names_file_and_field(
    name: str, content_of_mean: str, tmp_path: Path
) -> None:
    damage, match = DAMAGES[name]
    content = json.loads(content_of_mean)
    damage(content)
    (tmp_path / "ensemble.json").write_text(json.dumps(content))
    with pytest.raises(PredictionsError, match=match) as caught:
        Ensemble.load(tmp_path / "ensemble.json")
    line = str(caught.value)
    assert line.startswith(str(tmp_path / "ensemble.json"))
    assert "\n" not in line


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": 1, "format": 2}']
)
def test_a_file_of_another_kind_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "ensemble.json").write_bytes(data)
    with pytest.raises(PredictionsError, match=r"ensemble\.json must be"):
        Ensemble.load(tmp_path / "ensemble.json")


def test_an_undamaged_file_is_read(content_of_mean: str, tmp_path: Path) -> None:
    (tmp_path / "ensemble.json").write_text(content_of_mean)
    assert json.dumps(to_json(Ensemble.load(tmp_path / "ensemble.json"))) == content_of_mean
