"""Elastic workers: what the config allows, how long they are waited for. Compiled networks."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from ray.train.v2._internal.execution.controller.state import InitializingState, RunningState
from torch import nn

from canopy.config import (
    Experiment,
    OptimConfig,
    ScaleConfig,
    VariantConfig,
    derive,
    fingerprint,
)
from canopy.errors import FleetError
from canopy.train.distributed import compile_model, unwrap_model
from canopy.train.fleet.controller import ElasticPatience
from canopy.train.fleet.fleet import describe
from canopy.train.training_run import TrainingRun

TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"


def test_the_batch_must_divide_by_every_number_of_workers_that_may_be() -> None:
    VariantConfig(name="v", optim=OptimConfig(batch_size=12), scale=ScaleConfig(workers=4, min_workers=1))
    with pytest.raises(ValidationError, match=r"of each number down to scale.min_workers. Got: 16 and 3\."):
        VariantConfig(name="v", optim=OptimConfig(batch_size=16), scale=ScaleConfig(workers=4, min_workers=2))
    with pytest.raises(ValidationError, match=r"scale.min_workers must be at most scale.workers"):
        ScaleConfig(workers=1, min_workers=2)


def test_how_many_workers_and_whether_compiled_is_no_part_of_what_is_computed(tiny: Experiment) -> None:
    variant = tiny.variants[0]
    other = derive(variant, scale=derive(variant.scale, workers=2, min_workers=1, compile=True))
    assert fingerprint(other) == fingerprint(variant)
    assert describe(TrainingRun(other, 0, 1, "/run", "", "")).endswith("1 to 2 workers")


def test_patience_with_nodes_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "1800")
    patience = ElasticPatience(capacity_timeout_s=0.7)
    patience.after_controller_start(None)
    assert float(os.environ[TIMEOUT]) == 0.7
    waiting: Any = InitializingState()  # type: ignore[no-untyped-call]
    running: Any = RunningState()  # type: ignore[no-untyped-call]
    patience.after_controller_state_update(waiting, waiting)
    patience.after_controller_state_update(waiting, running)
    patience.after_controller_state_update(running, waiting)  # waiting begins anew
    patience.after_controller_state_update(waiting, waiting)
    with pytest.raises(FleetError, match=r"no room for scale.min_workers within 0.7 s"):
        patience.after_controller_state_update(waiting, waiting)
    ElasticPatience(capacity_timeout_s=1800).after_controller_start(None)
    assert float(os.environ[TIMEOUT]) == 30


def test_a_network_is_compiled_only_when_that_is_wanted() -> None:
    network = nn.Linear(2, 2)
    assert compile_model(network, ScaleConfig()) is network
    assert unwrap_model(compile_model(network, ScaleConfig(compile=True))) is network
    assert unwrap_model(network) is network


@pytest.mark.slow
def test_a_compiled_network_trains_as_the_one_it_was_made_of() -> None:
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler")
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    )
    images = torch.randn(2, 3, 8, 8)
    network(images).sum().backward()
    plain = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    fast = compile_model(network, ScaleConfig(compile=True))
    torch.testing.assert_close(fast(images), network(images))
    fast(images).sum().backward()
    assert len(plain) == 6
    torch.testing.assert_close([p.grad for p in network.parameters()], plain)
    assert list(unwrap_model(fast).state_dict()) == list(network.state_dict())
