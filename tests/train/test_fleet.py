from __future__ import annotations

import pytest

from canopy.config import Experiment, ScaleConfig, VariantConfig, derive
from canopy.train.fleet import describe, need, reason, startable
from canopy.train.unit import Unit


def unit(name: str, workers: int, cpus: float, accelerator: str | None = None) -> Unit:
    scale = ScaleConfig(workers=workers, cpus_per_worker=cpus, accelerator=accelerator)
    return Unit(VariantConfig(name=name, scale=scale), 0, 1, "/run", "f" * 64, "c" * 64)


def test_a_training_needs_its_workers_and_their_streams() -> None:
    assert need(ScaleConfig(workers=2, cpus_per_worker=0.5)) == {"CPU": 1.5}
    wanted = need(ScaleConfig(workers=4, cpus_per_worker=1, gpus_per_worker=1, accelerator="l4"))
    assert wanted == {"CPU": 5.0, "GPU": 4.0, "l4": 4.0}


@pytest.mark.usefixtures("ray_here")
def test_as_many_start_as_fit_and_the_rest_wait() -> None:
    units = [unit("a", 2, 0.75), unit("b", 2, 0.75), unit("c", 1, 0.25)]  # 2 + 2 + 0.5 of 4 CPUs
    assert startable(units, []) == units[:2]
    assert startable(units[1:], units[:1]) == [units[1]]
    assert startable(units[2:], units[:1]) == [units[2]]


@pytest.mark.usefixtures("ray_here")
def test_one_that_fits_nowhere_is_asked_for_when_nothing_else_runs() -> None:
    """An autoscaler brings a node only for what somebody asks for."""
    big, small = unit("big", 1, 0.5, accelerator="tpu"), unit("small", 1, 0.5)
    assert startable([big], [small]) == []
    assert startable([big, small], []) == [big, small]


def test_it_says_what_starts(tiny: Experiment) -> None:
    variant = derive(tiny.variants[1], loss=derive(tiny.variants[1].loss, gamma=1.5, alpha=0.4))
    text = describe(Unit(variant, 0, 1, "/run", "", ""))
    assert text == "test_resnet + CBAM (last), focal (γ 1.50, α 0.40), 2 epochs, 1 worker"


def test_the_reason_is_the_innermost_cause() -> None:
    class Group(Exception):
        worker_failures = {1: None}  # noqa: RUF012

    inner = ValueError("first line\nthe disk is full")
    outer = RuntimeError("task failed")
    outer.__cause__ = inner
    group = Group("training failed")
    group.worker_failures = {1: outer}  # type: ignore[dict-item]
    assert reason(group) == "the disk is full"
