"""Graceful shutdown: signals, the stop file, the grace period, what is kept."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from canopy.config import VariantConfig
from canopy.errors import Stopped
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.fleet.shutdown import ShutdownHandler, end_on_sigterm, stop_file
from canopy.train.monitor.progress_record import ProgressRecord, TrainingState
from canopy.train.training_run import TrainingRun


def training_in(folder: Path, name: str = "v") -> TrainingRun:
    return TrainingRun(VariantConfig(name=name), 0, 1, str(folder), "f" * 64, "c" * 64)


def write_record(folder: Path, state: TrainingState, kept_at: str | None = None) -> None:
    record = ProgressRecord("v", state, time=time.time(), kept_at=kept_at)
    files.write_json(str(folder / training_in(folder).directory / "progress.json"), record.to_json())


def ended(result: str | None = None, error: Exception | None = None) -> Future[str | None]:
    future: Future[str | None] = Future()
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
    return future


def handler_in(folder: Path, grace_s: float = 600) -> ShutdownHandler:
    return ShutdownHandler(RunDir(str(folder)), grace_s, Console())


def test_the_first_signal_writes_the_stop_file_and_the_end_removes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, training_run = RunDir(str(tmp_path)), training_in(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    with handler_in(tmp_path) as handler:
        assert not handler.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert handler.requested
        handler.request_stop([])
        assert not files.exists(stop_file(run_dir)), "no training runs"
        handler.request_stop([training_run])
        handler.request_stop([training_run])
        assert handler.stopping.is_set()
        assert files.read_json(stop_file(run_dir))["signal"] == signal.SIGTERM
    assert not files.exists(stop_file(run_dir))
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().out.count("SIGTERM: every training makes a checkpoint and ends") == 1


def test_a_stop_file_of_an_earlier_start_is_removed(tmp_path: Path) -> None:
    run_dir = RunDir(str(tmp_path))
    files.write_json(stop_file(run_dir), {"signal": 15, "time": 0})
    with handler_in(tmp_path):
        assert not files.exists(stop_file(run_dir))


@pytest.mark.parametrize(
    ("state", "abort"), [("starting", True), ("waiting", True), ("training", False), ("stopped", False)]
)
def test_only_trainings_that_have_trained_are_waited_for(
    tmp_path: Path, state: TrainingState, abort: bool
) -> None:
    with handler_in(tmp_path) as handler:
        write_record(tmp_path, state)
        os.kill(os.getpid(), signal.SIGINT)
        handler.request_stop([training_in(tmp_path)])
        assert handler.should_abort([training_in(tmp_path)]) == abort
        assert not handler.should_abort([])


def test_a_second_signal_ends_the_grace_period(tmp_path: Path) -> None:
    with handler_in(tmp_path) as handler:
        write_record(tmp_path, "training")
        os.kill(os.getpid(), signal.SIGTERM)
        handler.request_stop([training_in(tmp_path)])
        assert not handler.should_abort([training_in(tmp_path)])
        os.kill(os.getpid(), signal.SIGTERM)
        assert handler.should_abort([training_in(tmp_path)])


def test_a_record_of_an_earlier_start_does_not_count(tmp_path: Path) -> None:
    write_record(tmp_path, "training")
    time.sleep(0.01)
    with handler_in(tmp_path) as handler:
        os.kill(os.getpid(), signal.SIGTERM)
        handler.request_stop([training_in(tmp_path)])
        assert handler.should_abort([training_in(tmp_path)])


@pytest.mark.parametrize(
    ("future", "kept"),
    [
        (lambda: ended("epoch 3, step 4"), "epoch 3, step 4"),
        (lambda: ended(error=RuntimeError("x\nthe node is gone")), "epoch 2 (the node is gone)"),
    ],
)
def test_the_job_ends_with_what_is_kept(
    tmp_path: Path, future: Callable[[], Future[str | None]], kept: str
) -> None:
    with handler_in(tmp_path) as handler:
        write_record(tmp_path, "training", kept_at="epoch 2")
        assert not handler.on_training_end(training_in(tmp_path), future()), "no signal has come"
        os.kill(os.getpid(), signal.SIGTERM)
        assert not handler.on_training_end(training_in(tmp_path), ended(None)), "it is done"
        assert handler.on_training_end(training_in(tmp_path), future())
        error = handler.stopped_error()
    assert isinstance(error, Stopped)
    assert error.exit_status == 143
    assert f"v is kept at {kept}" in str(error)


def test_sigterm_ends_a_process_through_its_finally_blocks() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        end_on_sigterm()
        with pytest.raises(SystemExit) as caught:
            os.kill(os.getpid(), signal.SIGTERM)
        assert caught.value.code == 143
    finally:
        signal.signal(signal.SIGTERM, before)
