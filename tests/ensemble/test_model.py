"""The fitted ensemble: what it predicts, how it is kept, what it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.ensemble.worlds import FAST, LABELS, content, probs, world
from tests.support import REPOSITORY

from canopy.config import EnsembleConfig
from canopy.ensemble.candidates import KINDS
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
    assert ' "labels": ["common", "half", "some", "rare"],' in lines  # lists on one line: made to be read


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
        np.testing.assert_array_equal(alone_probs[0], batch_probs[n])
        np.testing.assert_array_equal(alone[0], batch[n])


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
