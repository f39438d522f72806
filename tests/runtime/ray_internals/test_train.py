"""Each private interface of Ray Train still does what Canopy uses it for."""

from __future__ import annotations

import inspect
from typing import Any

from ray.train import RunConfig, UserCallback
from ray.train.v2._internal.execution.controller import state as states

from canopy.runtime.ray_internals import train


def test_the_callback_class_has_the_hooks_that_are_used() -> None:
    """Ray Train calls ours when it starts and after each change of its state, by these names."""
    hooks = inspect.getmembers(train.ControllerCallback, inspect.isfunction)
    arguments = {name: list(inspect.signature(hook).parameters) for name, hook in hooks}
    assert arguments["after_controller_start"] == ["self", "train_run_context"]
    assert arguments["after_controller_state_update"] == ["self", "previous_state", "current_state"]


def test_the_worker_callbacks_have_the_hooks_that_are_used() -> None:
    """Named after what happens; a hook that Ray Train renames would never be called."""
    group = dict(inspect.getmembers(train.WorkerGroupCallback, inspect.isfunction))
    worker = dict(inspect.getmembers(train.WorkerCallback, inspect.isfunction))
    assert {
        "before_worker_group_start",
        "after_worker_group_start",
        "after_worker_group_training_start",
        "before_worker_group_shutdown",
        "after_worker_group_shutdown",
    } <= set(group)
    assert "after_init_train_context" in worker


def test_a_run_accepts_a_callback_of_the_private_class_beside_public_ones() -> None:
    class Ours(train.ControllerCallback):
        pass

    callbacks: list[Any] = [Ours(), UserCallback()]
    assert RunConfig(storage_path="/tmp", callbacks=callbacks).callbacks == callbacks


def test_the_waiting_states_exist_and_others_do_not_count() -> None:
    kinds = {name: kind for name, kind in vars(states).items() if name.endswith("State")}
    assert set(train.WAITING_STATES) <= set(kinds)

    def is_waiting(name: str) -> bool:
        return train.is_waiting_for_workers(object.__new__(kinds[name]))

    assert all(is_waiting(name) for name in train.WAITING_STATES)
    assert not any(is_waiting(name) for name in ("RunningState", "FinishedState", "ErroredState"))
