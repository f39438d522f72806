from __future__ import annotations

import json

import numpy as np
import pytest

from canopy.config import FieldRange, Space
from canopy.sweep import surface as module
from canopy.sweep.importance import Importance
from canopy.sweep.records import TrialRecord
from canopy.sweep.surface import CELLS, at_share, response_surface, surfaces_json, unit

SPACE: Space = {
    "optim.lr": FieldRange(low=1e-4, high=1e-2, log=True),
    "loss.gamma": FieldRange(low=0, high=4),
    "loss.name": ("bce", "focal"),
    "optim.weight_decay": FieldRange(low=0, high=1),
}
ORDER = [Importance(name, 1.0, 0.0, 1.0) for name in ("loss.name", "loss.gamma", "optim.lr")]


def trials(count: int, noise: float = 0.01, low_only: bool = False) -> list[TrialRecord]:
    """Scores with a peak at gamma 3 and lr 0.001; with ``low_only`` no trial has a gamma above 2."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        gamma = float(rng.uniform(0, 2 if low_only else 4))
        rate = float(10 ** rng.uniform(-4, -2))
        score = 0.7 - 0.02 * (gamma - 3) ** 2 - 0.05 * np.log10(rate / 1e-3) ** 2
        values = {"loss.gamma": gamma, "optim.lr": rate}
        found.append(TrialRecord(values, float(score + rng.normal(0, noise)), 4, False, None))
    return found


def test_the_surface_lies_over_the_two_most_important_ranges_and_finds_the_peak() -> None:
    surface = response_surface(SPACE, trials(40), ORDER)
    assert surface is not None
    assert (surface.x, surface.y, surface.trials) == ("loss.gamma", "optim.lr", 40)
    mean_YX = np.array(surface.mean)
    assert mean_YX.shape == np.array(surface.deviation).shape == (CELLS, CELLS)
    y, x = np.unravel_index(mean_YX.argmax(), mean_YX.shape)
    assert surface.x_values[x] == pytest.approx(3, abs=0.6)
    assert np.log10(surface.y_values[y]) == pytest.approx(-3, abs=0.35)
    assert mean_YX.max() == pytest.approx(0.7, abs=0.02)
    assert surface.noise == pytest.approx(0.01, abs=0.006)
    assert json.loads(json.dumps(surfaces_json({"a": surface, "b": None})))["a"]["x"] == "loss.gamma"


def test_the_deviation_grows_where_no_trial_is() -> None:
    surface = response_surface(SPACE, trials(30, low_only=True), ORDER)
    assert surface is not None
    deviation_YX = np.array(surface.deviation)
    seen, unseen = deviation_YX[:, : CELLS // 2].mean(), deviation_YX[:, -3:].mean()
    assert unseen > 3 * seen


def test_of_very_many_trials_some_are_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TRIALS", 30)
    many = trials(200)
    surface = response_surface(SPACE, many, ORDER)
    assert surface is not None
    assert surface.trials == 30
    assert response_surface(SPACE, many, ORDER) == surface, "always the same ones"


def test_without_two_ranges_or_enough_trials_there_is_none() -> None:
    assert response_surface(SPACE, trials(9), ORDER) is None
    assert response_surface(SPACE, trials(20), ORDER[:2]) is None
    stopped = [TrialRecord(one.values, one.score, 2, True, None) for one in trials(20)]
    assert response_surface(SPACE, stopped, ORDER) is None
    partly = [TrialRecord({"loss.gamma": 1.0}, 0.5, 4, False, None)] * 20
    assert response_surface(SPACE, partly, ORDER) is None
    equal = [TrialRecord(one.values, 0.5, 4, False, None) for one in trials(20)]
    assert response_surface(SPACE, equal, ORDER) is None


@pytest.mark.parametrize("name", ["optim.lr", "loss.gamma"])
def test_places_and_values_are_inverse(name: str) -> None:
    domain = SPACE[name]
    assert isinstance(domain, FieldRange)
    for share in (0.0, 0.3, 1.0):
        assert unit(domain, at_share(domain, share)) == pytest.approx(share)
    assert at_share(domain, 1.0) == pytest.approx(domain.high)
