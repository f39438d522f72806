"""Callbacks in Ray Train's controller: errors that end a training, the copied list, elastic time-outs."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from ray import exceptions
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2._internal.execution.controller.state import InitializingState, RunningState

from canopy.errors import DataError, FleetError, StorageError
from canopy.train.checkpoint.ray_checkpoint_list import SNAPSHOT, SNAPSHOT_COPY
from canopy.train.fleet.controller_callbacks import ElasticTimeout, EndWithoutRestart, SnapshotCopier

TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
PARTS = ("Image 7", "must be readable", "no file", "Restore it.")
KILLED = WorkerHealthCheckFailedError("failed", failure=exceptions.OutOfMemoryError("killed"))  # type: ignore[no-untyped-call]


def test_a_permanent_error_of_any_rank_ends_the_training() -> None:
    for end_on_oom in (True, False):
        with pytest.raises(DataError, match="Image 7"):
            EndWithoutRestart(end_on_oom).after_exception(None, {0: OSError("reset"), 1: DataError(*PARTS)})


def test_other_errors_are_left_to_ray_train() -> None:
    EndWithoutRestart(True).after_exception(None, {0: StorageError(*PARTS), 1: RuntimeError("crash")})
    EndWithoutRestart(False).after_exception(None, {0: KILLED})


def test_a_kill_for_memory_ends_the_training_while_the_fleet_waits() -> None:
    with pytest.raises(exceptions.OutOfMemoryError, match="killed"):
        EndWithoutRestart(True).after_exception(None, {0: RuntimeError("reset"), 1: KILLED})


def test_the_list_is_copied_and_a_failure_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copier = SnapshotCopier(str(tmp_path))
    with caplog.at_level(logging.WARNING, "canopy"):
        copier.after_report(None, {}, None)
        copier.after_report(None, {}, None)
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "The list of checkpoints could not be copied"
    ]
    (tmp_path / SNAPSHOT).write_text("{}")
    copier.after_report(None, {}, None)
    assert (tmp_path / SNAPSHOT_COPY).read_text() == "{}"


def test_an_elastic_training_waits_for_workers_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "1800")
    timeout = ElasticTimeout(capacity_timeout_s=0.7)
    timeout.after_controller_start(None)
    assert float(os.environ[TIMEOUT]) == 0.7
    waiting: Any = InitializingState()  # type: ignore[no-untyped-call]
    running: Any = RunningState()  # type: ignore[no-untyped-call]
    timeout.after_controller_state_update(waiting, waiting)
    timeout.after_controller_state_update(waiting, running)
    timeout.after_controller_state_update(running, waiting)  # the wait begins again
    timeout.after_controller_state_update(waiting, waiting)
    with pytest.raises(FleetError, match=r"no room for scale.min_workers within 0.7 s"):
        timeout.after_controller_state_update(waiting, waiting)
    ElasticTimeout(capacity_timeout_s=1800).after_controller_start(None)
    assert float(os.environ[TIMEOUT]) == 30
