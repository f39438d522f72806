from __future__ import annotations

from typing import Any

import pytest

from canopy.config import FinetuneConfig, OptimConfig
from canopy.train.schedule import group_schedules, one_cycle, starting_at

STEPS = 10


def groups(*distances: int) -> list[dict[str, Any]]:
    return [{"params": [], "distance": distance} for distance in distances]


def test_without_fine_tuning_every_group_has_the_one_cycle() -> None:
    optim = OptimConfig(epochs=4, warmup_fraction=0.25)
    first, second = group_schedules(groups(0, 3), optim, FinetuneConfig(), STEPS)
    common = one_cycle(0.25, 40)
    for step in range(40):
        assert first(step) == second(step) == common(step)
    assert common(9) == 1
    assert common(39) < 0.02


def test_averaged_epochs_have_a_constant_rate() -> None:
    optim, finetune = OptimConfig(epochs=4, warmup_fraction=0.0), FinetuneConfig(swa_epochs=2, swa_lr=0.3)
    (factor,) = group_schedules(groups(0), optim, finetune, STEPS)
    assert factor(0) == 1
    assert factor(19) == pytest.approx(0.3, abs=0.01)
    assert [factor(step) for step in range(20, 40)] == [pytest.approx(0.3)] * 20


def test_layers_wait_for_their_epoch() -> None:
    optim, finetune = OptimConfig(epochs=6), FinetuneConfig(unfreeze_epochs=2)
    factors = group_schedules(groups(0, 1, 2, 3, 4), optim, finetune, STEPS)
    first_steps = [next(step for step in range(60) if factor(step) > 0) for factor in factors]
    assert first_steps == [0, 10, 10, 20, 20]
    assert [factor(30) for factor in factors] == [one_cycle(optim.warmup_fraction, 60)(30)] * 5


def test_a_late_start() -> None:
    factor = starting_at(lambda step: step + 1.0, 2)
    assert [factor(step) for step in range(4)] == [0, 0, 3, 4]
