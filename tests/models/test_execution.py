"""The choice among settings by their timings; settings as JSON."""

from __future__ import annotations

from typing import Any

import pytest

from canopy.errors import ConfigError
from canopy.models.execution import Execution, choose

DEFAULT = Execution(threads=2, batch_size=32)
OTHER = Execution(threads=2, batch_size=64)
THIRD = Execution(threads=1, batch_size=32)


def test_the_fastest_in_most_rounds_is_chosen_though_some_rounds_were_disturbed() -> None:
    timings = {DEFAULT: [1.0, 1.0, 9.0], OTHER: [0.7, 0.7, 6.0], THIRD: [0.8, 0.8, 2.0]}
    assert choose(timings) == OTHER


def test_a_small_gain_keeps_the_default() -> None:
    assert choose({DEFAULT: [1.0, 1.0], OTHER: [0.97, 0.96]}) == DEFAULT
    assert choose({DEFAULT: [1.0, 1.0], OTHER: [0.94, 0.94]}) == OTHER


def test_a_gain_in_some_rounds_alone_is_noise() -> None:
    noisy = [0.5, 0.6, 0.5, 1.5, 1.6]
    assert choose({DEFAULT: [1.0] * 5, OTHER: noisy}) == DEFAULT
    assert choose({DEFAULT: [1.0] * 5, OTHER: noisy, THIRD: [0.9, 0.9, 0.9, 1.4, 0.9]}) == THIRD


def test_a_round_slowed_as_a_whole_does_not_count_for_one_setting() -> None:
    assert choose({DEFAULT: [1.0, 5.0, 5.0], OTHER: [2.0, 10.0, 10.0]}) == DEFAULT


def test_alternatives_change_one_setting_at_a_time() -> None:
    threads, formats, batches = Execution(4, 32).alternatives(4, (16, 32))
    assert [one.threads for one in threads] == [4, 2, 1]
    assert [one.memory_format for one in formats] == ["channels_last", "contiguous"]
    assert [one.batch_size for one in batches] == [32, 16]
    assert [len(axis) for axis in Execution(1, 32).alternatives(1, ())] == [1, 2, 1]


def test_settings_survive_json_and_damaged_ones_are_refused() -> None:
    setting = Execution(3, 16, "contiguous", "bfloat16")
    assert Execution.from_json(setting.to_json(), "x") == setting
    assert setting.text == "contiguous, 3 thread(s), batches of 16 images, bfloat16"
    broken: tuple[Any, ...] = (
        None,
        [],
        {"threads": 0, "batch_size": 1},
        {"threads": 1, "batch_size": 1, "memory_format": "x"},
        {"threads": 1, "batch_size": 1, "precision": "half"},
        {"threads": "many", "batch_size": 1},
        {"threads": "2", "batch_size": 1},
        {"threads": 2.5, "batch_size": 1},
        {"threads": True, "batch_size": 1},
    )
    for damaged in broken:
        with pytest.raises(ConfigError, match="must hold the settings of an execution"):
            Execution.from_json(damaged, "x")
