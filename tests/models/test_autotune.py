"""Timed choices, and their cache."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
import torch

from canopy.models import autotune
from canopy.models.autotune import Autotune, has_bfloat16, machine, timed_rounds
from canopy.models.execution import Execution

CPU = torch.device("cpu")
DEFAULT = Execution(threads=4, batch_size=32)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CANOPY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def cost(setting: Execution) -> float:
    """Seconds per image on a machine where two threads, plain order and batches of 16 are best."""
    slow = 1.0 + (setting.threads != 2) + (setting.batch_size != 16)
    return slow + 0.5 * (setting.memory_format == "channels_last")


def test_each_setting_is_chosen_and_the_choice_is_kept(
    own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="canopy")
    tune = Autotune(DEFAULT, 4, (8, 16, 32), ["network", 96])
    best = Execution(2, 16, "contiguous")
    assert tune.settings(CPU, cost) == best
    assert "autotune: contiguous, 2 thread(s), batches of 16 images (chosen in" in caplog.text
    assert tune.path(CPU).is_relative_to(own_cache / "execution")

    def never(setting: Execution) -> float:
        raise AssertionError(setting)

    assert tune.settings(CPU, never) == best
    assert "chosen earlier on this kind of machine" in caplog.text


def test_another_network_or_machine_has_a_choice_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    tune = Autotune(DEFAULT, 4, (), ["network", 96])
    assert Autotune(DEFAULT, 4, (), ["network", 64]).path(CPU) != tune.path(CPU)
    first = tune.path(CPU)
    monkeypatch.setattr(autotune, "processor_name", lambda: "another processor")
    assert tune.path(CPU) != first


def test_a_damaged_file_in_the_cache_is_measured_again(caplog: pytest.LogCaptureFixture) -> None:
    tune = Autotune(DEFAULT, 4, (), ["network"])
    tune.path(CPU).parent.mkdir(parents=True)
    tune.path(CPU).write_text("{")
    assert tune.settings(CPU, cost) == Execution(2, 32, "contiguous")
    assert "cannot be used" in caplog.text


def test_a_cache_that_cannot_be_written_costs_a_warning(
    own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_cache.write_text("a file")
    assert Autotune(DEFAULT, 4, (), ["network"]).settings(CPU, cost).threads == 2
    assert "cannot be kept" in caplog.text


def test_rounds_end_in_time_and_the_first_step_of_a_setting_does_not_count() -> None:
    steps: list[Execution] = []

    def first_is_slow(setting: Execution) -> float:
        steps.append(setting)
        return 100.0 if steps.count(setting) == 1 else 1.0

    other = Execution(1, 32)
    assert timed_rounds([DEFAULT, other], first_is_slow, 0.0) == {DEFAULT: [1.0], other: [1.0]}
    assert steps == [DEFAULT, other, DEFAULT, other]
    assert len(timed_rounds([DEFAULT], cost, 60.0)[DEFAULT]) == autotune.MOST_ROUNDS


def test_a_long_step_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="canopy")
    steps: list[Execution] = []

    def slow(setting: Execution) -> float:
        steps.append(setting)
        time.sleep(0.05)
        return 1.0

    assert Autotune(DEFAULT, 4, (), ["network"], seconds=0.1).measured(slow) == DEFAULT
    assert steps == [DEFAULT]
    assert "the defaults are kept" in caplog.text


def test_threads_may_be_left_alone() -> None:
    tune = Autotune(DEFAULT, 0, (16,), ["network"])
    assert tune.settings(CPU, cost) == Execution(4, 16, "contiguous")
    assert tune.settings(CPU, cost).threads == 4


def test_bfloat16_needs_instructions_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, expected in (({"avx2": True}, False), ({"avx512_bf16": True}, True), ({}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags)
        assert has_bfloat16(CPU) is expected


def test_the_machine_is_named_by_its_processor_and_torch() -> None:
    name, _, version = machine(CPU)
    assert name
    assert version == torch.__version__
