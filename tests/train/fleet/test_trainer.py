"""One training as a Ray Train run: waits after memory ran out, the mark in its directory, limits."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray import exceptions
from ray.train import ControllerError

from canopy.config import Experiment, FleetConfig, derive
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.fleet.outputs import OUTPUTS
from canopy.train.fleet.trainer import (
    FleetContext,
    failure_limits,
    fit_with_oom_retries,
    mark_done,
    withdraw_mark,
)
from canopy.train.training_records import TrainingSummary
from canopy.train.training_run import TrainingRun

KILLED = ControllerError(exceptions.OutOfMemoryError("killed"))  # type: ignore[no-untyped-call]
SUMMARY = TrainingSummary(1.0, False, 2.0, 2, 1, 100.0, 0)


class Trainer:
    """A stand-in for one Ray Train run: fails with each of its failures, then succeeds.

    Args:
        failures: errors of the first starts.
    """

    def __init__(self, *failures: Exception) -> None:
        self.failures, self.end_on_oom = list(failures), list[bool]()

    def __call__(self, end_on_oom: bool) -> str | None:
        self.end_on_oom.append(end_on_oom)
        if self.failures:
            raise self.failures.pop(0)
        return "epoch 3"


def training_in(folder: Path, experiment: Experiment, fingerprint: str = "a" * 64) -> TrainingRun:
    return TrainingRun(experiment.variants[0], 0, 1, str(folder), fingerprint, "c" * 64)


def context_for(folder: Path, experiment: Experiment, waits: list[str], **fleet: Any) -> FleetContext:
    config = derive(experiment, fleet=derive(experiment.fleet, **fleet))
    chips: Any = None
    return FleetContext(
        chips, RunDir(str(folder)), config, threading.Event(), lambda _, reason: waits.append(reason)
    )


def test_a_training_killed_for_memory_waits_ever_longer_and_runs_again(
    tmp_path: Path, tiny: Experiment
) -> None:
    waits: list[str] = []
    context = context_for(tmp_path, tiny, waits, oom_retries=3, oom_wait_s=0.05)
    trainer, start = Trainer(KILLED, KILLED), time.monotonic()
    assert fit_with_oom_retries(training_in(tmp_path, tiny), context, trainer) == "epoch 3"
    assert time.monotonic() - start >= 0.15
    assert trainer.end_on_oom == [True, True, True]
    assert [wait.split("Restart ")[1] for wait in waits] == ["1 of 3 in 0.05 s.", "2 of 3 in 0.1 s."]
    assert waits[0].startswith("memory ran out. Lower ")


def test_after_the_waits_a_kill_for_memory_is_a_crash(tmp_path: Path, tiny: Experiment) -> None:
    waits: list[str] = []
    context = context_for(tmp_path, tiny, waits, oom_retries=2, oom_wait_s=0.01)
    trainer = Trainer(KILLED, KILLED, KILLED)
    with pytest.raises(ControllerError):
        fit_with_oom_retries(training_in(tmp_path, tiny), context, trainer)
    assert trainer.end_on_oom == [True, True, False], "the last start leaves the kill to max_failures"
    assert len(waits) == 2


def test_without_retries_nothing_waits(tmp_path: Path, tiny: Experiment) -> None:
    trainer = Trainer()
    context = context_for(tmp_path, tiny, [], oom_retries=0)
    assert fit_with_oom_retries(training_in(tmp_path, tiny), context, trainer) == "epoch 3"
    assert trainer.end_on_oom == [False]


def test_another_failure_is_not_waited_for(tmp_path: Path, tiny: Experiment) -> None:
    waits: list[str] = []
    with pytest.raises(RuntimeError, match="crash"):
        fit_with_oom_retries(
            training_in(tmp_path, tiny), context_for(tmp_path, tiny, waits), Trainer(RuntimeError("crash"))
        )
    assert waits == []


def test_a_stop_request_ends_the_wait(tmp_path: Path, tiny: Experiment) -> None:
    context = context_for(tmp_path, tiny, [], oom_wait_s=600)
    stopped = replace(context, on_wait=lambda *_: context.stopping.set())
    with pytest.raises(ControllerError):
        fit_with_oom_retries(training_in(tmp_path, tiny), stopped, Trainer(KILLED, KILLED))


def write_result(run_dir: RunDir, training_run: TrainingRun, weights: bytes) -> None:
    """The files of a finished training."""
    for name in (*OUTPUTS, "val.parquet", "test.parquet", "heldout.parquet"):
        files.write_bytes(run_dir.path(training_run.directory, name), weights)
    files.write_json(run_dir.path(training_run.directory, "facts.json"), SUMMARY.to_json())


def test_the_mark_is_withdrawn_before_another_config_writes(tmp_path: Path, tiny: Experiment) -> None:
    """Config A has finished; B, killed after its weights were written, must not pass for A."""
    run_dir = RunDir(str(tmp_path))
    first, second = training_in(tmp_path, tiny), training_in(tmp_path, tiny, "b" * 64)
    write_result(run_dir, first, b"weights of A")
    mark_done(run_dir, first, 3.0)
    assert run_dir.done(first.directory, first.fingerprint) is not None
    withdraw_mark(run_dir, second)
    write_result(run_dir, second, b"weights of B")
    assert run_dir.done(first.directory, first.fingerprint) is None
    assert run_dir.done(second.directory, second.fingerprint) is None


def test_a_mark_does_not_outlive_its_files(tmp_path: Path, tiny: Experiment) -> None:
    run_dir, training_run = RunDir(str(tmp_path)), training_in(tmp_path, tiny)
    write_result(run_dir, training_run, b"weights of A")
    mark_done(run_dir, training_run, 3.0)
    mark = run_dir.done(training_run.directory, training_run.fingerprint)
    assert mark is not None
    assert set(mark.outputs) == {*OUTPUTS, "val.parquet", "test.parquet"}, "one fold has no held-out rows"
    assert mark.facts == {"seconds": 3.0, **SUMMARY.to_json()}
    files.write_bytes(run_dir.path(training_run.directory, "weights.safetensors"), b"weights of B")
    assert run_dir.done(training_run.directory, training_run.fingerprint) is None


def test_every_limit_is_finite() -> None:
    limits = failure_limits(FleetConfig())
    assert set(limits) == {"max_failures", "max_preemption_failures", "controller_failure_limit"}
    assert all(limit >= 0 for limit in limits.values())
