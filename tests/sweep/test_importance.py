from __future__ import annotations

import numpy as np

from canopy.config import FieldRange, Space
from canopy.config.search_space import Choice
from canopy.sweep.importance import MIN_TRIALS, importances
from canopy.sweep.records import TrialRecord

SPACE: Space = {
    "loss.name": ("bce", "focal"),
    "loss.gamma": FieldRange(low=0, high=4),
    "optim.lr": FieldRange(low=1e-4, high=1e-1, log=True),
}


def trials(count: int, noise: float = 0.01, epochs: int = 4) -> list[TrialRecord]:
    """Made-up trials whose score depends on the learning rate alone."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        lr = float(10 ** rng.uniform(-4, -1))
        values: dict[str, Choice] = {"loss.name": str(rng.choice(["bce", "focal"])), "optim.lr": lr}
        if values["loss.name"] == "focal":
            values["loss.gamma"] = float(rng.uniform(0, 4))
        score = -abs(np.log10(lr) + 2.5) + rng.normal(0, noise)
        found.append(TrialRecord(values, float(score), epochs, False, None))
    return found


def test_the_field_that_decides_is_found_with_an_interval_above_zero() -> None:
    first, *others = importances(SPACE, trials(40))
    assert first.field == "optim.lr"
    assert first.low > 0.2
    assert all(abs(one.value) < 0.2 for one in others)
    assert all(one.low <= one.value <= one.high for one in [first, *others])


def test_without_an_effect_no_interval_lies_above_zero() -> None:
    rng = np.random.default_rng(1)
    noise = [TrialRecord(one.values, float(rng.normal()), 4, False, None) for one in trials(40)]
    assert all(one.low <= 0 for one in importances(SPACE, noise))


def test_few_or_stopped_trials_have_no_importance() -> None:
    assert importances(SPACE, trials(MIN_TRIALS - 1)) == []
    stopped = [TrialRecord(one.values, one.score, 1, True, None, (0.0,)) for one in trials(40)]
    assert importances(SPACE, trials(MIN_TRIALS - 1, epochs=9) + stopped) == []
