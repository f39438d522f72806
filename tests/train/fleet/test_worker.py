"""The worker's helpers; whole trainings are in tests/end_to_end and test_fleet.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from canopy.config import FleetConfig, VariantConfig
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.checkpoint.trigger import POLL_EVERY_S
from canopy.train.fleet.shutdown import stop_file
from canopy.train.fleet.worker import make_checkpoint_trigger, model_wrapper, stored_progress
from canopy.train.training_phase import DistributedContext
from canopy.train.training_records import TrainingPosition

ALONE = DistributedContext(0, 1, torch.device("cpu"))


def test_a_new_training_begins_at_epoch_0() -> None:
    assert stored_progress(None) == TrainingPosition()


def test_the_trigger_reads_the_stop_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.train

    preempted: list[Any] = [None]
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: preempted[0])
    run_dir = RunDir(str(tmp_path))
    trigger = make_checkpoint_trigger(FleetConfig(checkpoint_minutes=None), run_dir, ALONE)
    assert trigger.poll_every_s == POLL_EVERY_S
    assert not trigger.stop_requested()
    assert not trigger.preemption_announced()
    files.write_json(stop_file(run_dir), {})
    preempted[0] = object()
    assert trigger.stop_requested()
    assert trigger.preemption_announced()
    assert trigger.should_checkpoint()
    assert trigger.reason == "stop"


def test_one_process_needs_no_wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.train.torch

    monkeypatch.setattr(ray.train.torch, "prepare_model", lambda network, move_to_device: network)
    network = nn.Linear(2, 2)
    assert model_wrapper(VariantConfig(name="v"), ALONE)(network) is network
