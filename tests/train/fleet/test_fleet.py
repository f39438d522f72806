from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from safetensors.torch import save_file
from tests.support import read_json, tiny_experiment, write_config

from canopy.config import (
    Experiment,
    FleetConfig,
    ModelConfig,
    OptimConfig,
    ScaleConfig,
    VariantConfig,
    derive,
)
from canopy.errors import CanopyError, ConfigError, DataError, InputError, StageError
from canopy.train.fleet.failures import for_the_controller, reason
from canopy.train.fleet.fleet import bundles, capacity, describe, failure_limits, why_failed
from canopy.train.fleet.scheduler import (
    Ask,
    longest_first,
    multiply_adds,
    place,
    startable,
    with_promise,
    work_of,
)
from canopy.train.training_run import TrainingRun
from jobs import prepare, train


def ask(name: str, work: float, cpus: float = 0.0, gpus: float = 0.0, workers: int = 1, **more: float) -> Ask:
    amounts = {"CPU": cpus, "GPU": gpus, **more}
    return Ask(name, work, ({k: v for k, v in amounts.items() if v},) * workers)


def names(asks: list[Ask]) -> list[str]:
    return [one.name for one in asks]


# What a training asks for, and how long it may take.


def test_a_training_needs_its_workers_and_their_streams() -> None:
    assert bundles(ScaleConfig(workers=2, cpus_per_worker=0.5)) == ({"CPU": 0.5},) * 2 + ({"CPU": 0.25},) * 2
    worker, stream = bundles(ScaleConfig(workers=1, cpus_per_worker=1, gpus_per_worker=0.5, accelerator="l4"))
    assert (worker, stream) == ({"CPU": 1.0, "GPU": 0.5, "l4": 1.0}, {"CPU": 0.25})


def test_multiply_adds_are_those_that_are_published() -> None:
    assert multiply_adds("resnet18", 224, 64) == pytest.approx(1.82e9, rel=0.01)  # He et al. 2016: 1.8e9
    assert multiply_adds("test_resnet", None, 64) == multiply_adds("test_resnet", 64, 256)


def test_work_grows_with_epochs_size_and_network_and_shrinks_with_workers() -> None:
    base = VariantConfig(name="v", model=ModelConfig(backbone="test_resnet"), optim=OptimConfig(epochs=2))
    work = work_of(base, 1000, 32)
    assert work_of(derive(base, optim=derive(base.optim, epochs=4)), 1000, 32) == pytest.approx(2 * work)
    assert work_of(derive(base, scale=derive(base.scale, workers=2)), 1000, 32) == pytest.approx(work / 2)
    assert work_of(base, 2000, 32) == pytest.approx(2 * work)
    assert work_of(base, 1000, 64) == pytest.approx(4 * work, rel=0.05)
    smaller = derive(base, model=derive(base.model, backbone="test_byobnet"))
    assert work_of(smaller, 1000, 32) < work


# Which ones start.


def test_longest_first_and_equals_as_they_stood() -> None:
    asks = [ask("a", 1), ask("b", 5), ask("c", 5), ask("d", 3)]
    assert names(longest_first(asks)) == ["b", "c", "d", "a"]


def test_as_many_start_as_fit_and_the_rest_wait() -> None:
    nodes = [{"CPU": 4.0}]
    asks = [ask("a", 3, cpus=2), ask("b", 2, cpus=2), ask("c", 1, cpus=0.5)]
    assert startable(asks, [], nodes) == asks[:2]
    assert startable(asks[1:], asks[:1], nodes) == [asks[1]]
    assert startable(asks[2:], asks[:2], nodes) == []


def test_four_whole_gpus_run_beside_half_a_gpu() -> None:
    nodes = [{"CPU": 32.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 1.0}]
    large = ask("b5", 9, cpus=2, gpus=1, workers=4)
    small = [ask(f"b0-{n}", 1, cpus=1, gpus=0.5) for n in range(3)]
    assert names(startable([large, *small], [], nodes)) == ["b5", "b0-0", "b0-1"]


def test_a_worker_lies_on_one_node() -> None:
    nodes = [{"GPU": 1.0}, {"GPU": 1.0}]
    assert place([ask("a", 1, gpus=0.6), ask("b", 1, gpus=0.6)], nodes) is not None
    assert place([ask("a", 1, gpus=0.6), ask("b", 1, gpus=0.6), ask("c", 1, gpus=0.6)], nodes) is None
    assert place([ask("a", 1, gpus=2)], nodes) is None
    # Work without a GPU leaves the GPU nodes to those that need one.
    left = place([ask("a", 1, cpus=2)], [{"CPU": 2.0, "GPU": 1.0}, {"CPU": 2.0}])
    assert left == [{"CPU": 2.0, "GPU": 1.0}, {"CPU": 0.0}]


def test_a_large_one_in_the_queue_is_not_overtaken_by_what_would_delay_it() -> None:
    nodes = [{"GPU": 4.0}]
    running = [ask("old", 10, gpus=1)]
    large, long, short = ask("large", 50, gpus=4), ask("long", 20, gpus=1), ask("short", 5, gpus=1)
    # ``short`` is expected to end before ``old``, for which ``large`` has to wait anyway; ``long`` is not.
    assert names(startable([large, long, short], running, nodes)) == ["short"]
    # What leaves enough room for it may run as long as it likes.
    nodes = [{"GPU": 5.0}]
    assert names(startable([large, long], [ask("old", 10, gpus=2)], nodes)) == ["long"]


@pytest.mark.parametrize("seed", range(20))
def test_nobody_starves_and_nothing_is_promised_twice(seed: int) -> None:
    """A random fleet, played to its end with pace as estimated: the largest need is served in its turn."""
    rng = np.random.default_rng(seed)
    nodes = [{"CPU": 16.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 2.0}]
    gpus = enumerate(rng.choice([0.5, 1, 2, 4, 6], 40))
    asks = longest_first(
        ask(f"u{n}", float(rng.integers(1, 30)), cpus=1, gpus=min(1.0, g), workers=max(1, int(g)))
        for n, g in gpus
    )
    waiting, running = list(asks), list[Ask]()
    clock, started = 0.0, dict[str, float]()
    bound: dict[str, float] = {}
    while waiting or running:
        for one in startable(waiting, running, nodes):
            waiting.remove(one)
            running.append(one)
            started[one.name] = clock
        assert place(running, nodes) is not None, "more was started than fits"
        assert running, "nothing runs and somebody waits"
        if waiting and waiting[0].name not in bound:  # its turn has come: it waits for these at most
            bound[waiting[0].name] = clock + max(one.work for one in running)
        passed = min(one.work for one in running)
        clock += passed
        running = [replace(one, work=one.work - passed) for one in running if one.work - passed > 1e-9]
    assert set(started) == set(names(asks))
    for name, latest in bound.items():
        assert started[name] <= latest + 1e-6, f"{name} was held up"


def test_what_fits_nowhere_is_asked_for_one_at_a_time_and_holds_nobody_up() -> None:
    """An autoscaler brings a node only for what somebody asks for."""
    nodes = [{"CPU": 2.0}]
    first, second = ask("first", 9, cpus=1, tpu=1), ask("second", 8, cpus=1, tpu=1)
    small = ask("small", 1, cpus=1)
    assert startable([first, second, small], [], nodes) == [first, small]
    assert startable([second], [first, small], nodes) == []


def test_promised_nodes_count() -> None:
    nodes = [{"CPU": 6.0}, {"CPU": 16.0, "GPU": 1.0}]
    grown = with_promise(nodes, {"CPU": 54.0, "GPU": 4.0})
    assert grown == [*nodes, {"CPU": 32.0, "GPU": 3.0}]
    assert with_promise(nodes, {"GPU": 1.0}) == nodes
    asks = [ask(f"u{n}", 1, cpus=1, gpus=1) for n in range(5)]
    assert len(startable(asks, [], nodes)) == 1
    assert len(startable(asks, [], grown)) == 4


def test_nothing_starts_while_one_that_ran_has_lost_its_node() -> None:
    running = [ask("a", 5, gpus=1), ask("b", 5, gpus=1)]
    assert startable([ask("c", 1, gpus=1)], running, [{"GPU": 1.0}]) == []


@pytest.mark.usefixtures("ray_here")
def test_capacity_is_that_of_the_living_nodes_and_what_is_promised() -> None:
    (node,) = capacity(FleetConfig())
    assert node["CPU"] == 4
    assert capacity(FleetConfig(promised={"GPU": 2}))[1:] == [{"GPU": 2.0}]


# What is said, and what a failure means.


def test_it_says_what_starts(tiny: Experiment) -> None:
    variant = derive(tiny.variants[1], loss=derive(tiny.variants[1].loss, gamma=1.5, alpha=0.4))
    text = describe(TrainingRun(variant, 0, 1, "/run", "", ""))
    assert text == "test_resnet + CBAM (last), focal, γ 1.5, α 0.4, 2 epochs, 1 worker"


def test_every_limit_is_finite() -> None:
    limits = failure_limits(FleetConfig())
    assert set(limits) == {"max_failures", "max_preemption_failures", "controller_failure_limit"}
    assert all(limit >= 0 for limit in limits.values())


def test_the_reason_is_the_innermost_cause() -> None:
    class Group(Exception):
        worker_failures = {1: None}  # noqa: RUF012

    inner = ValueError("first line\nthe disk is full")
    outer = RuntimeError("task failed")
    outer.__cause__ = inner
    group = Group("training failed")
    group.worker_failures = {1: outer}  # type: ignore[dict-item]
    assert reason(group) == "the disk is full"


def test_nodes_that_did_not_come_are_told_in_our_words() -> None:
    from ray.train import ControllerError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "30.0"
    told = why_failed(ControllerError(WorkerGroupStartupTimeoutError(3)))
    assert told.startswith(
        "the cluster had no room for its 3 workers within 30.0 s (fleet.capacity_timeout_s"
    )


def caused(error: CanopyError, cause: Exception) -> CanopyError:
    error.__cause__ = cause
    return error


def test_only_what_may_pass_is_worth_a_restart() -> None:
    refused = InputError("s3://b/x", "must be reachable", "HTTP 503", "Check it.")
    absent = ConfigError("model.weights", "must be a file", "x", "Check it.")
    final: list[Exception] = [
        StageError("variant v: the loss became nan"),
        absent,
        caused(ConfigError(*absent.args), FileNotFoundError("x")),
    ]
    for error in final:
        sent = for_the_controller(error)
        assert type(sent) is type(error)
        assert str(sent) == str(error)
    passing = for_the_controller(caused(refused, OSError("HTTP 503")))
    assert type(passing) is OSError
    assert str(passing) == str(refused)
    crash = RuntimeError("connection reset by peer")
    assert for_the_controller(crash) is crash


@pytest.mark.usefixtures("ray_here")
def test_an_error_of_ours_is_found_behind_a_task_of_ray() -> None:
    @ray.remote(max_retries=0)
    def task() -> None:
        raise DataError("Image 7", "must be readable", "no file", "Restore it.")

    with pytest.raises(Exception, match="must be readable") as caught:
        ray.get(task.remote())
    sent = for_the_controller(caught.value)
    assert type(sent) is DataError
    assert str(sent) == "Image 7 must be readable. Got: no file. Restore it."


# The whole on a real Ray.


@pytest.fixture
def half_sound(tmp_path: Path) -> tuple[Path, Path]:
    """A config of a sound variant on two workers and one with foreign weights; a run directory."""
    config = tiny_experiment(variants=3, trials=0, epochs=2)
    _, bad, good = config.variants
    save_file({"another": torch.zeros(2)}, tmp_path / "other.safetensors")
    bad = derive(bad, model=derive(bad.model, weights=str(tmp_path / "other.safetensors")))
    return write_config(derive(config, variants=(good, bad)), tmp_path / "c.yaml"), tmp_path / "run"


def workers_so_far() -> int:
    """How many training workers this Ray has ever started."""
    state: Any = ray._private.state.state
    return sum(actor["ActorClassName"] == "RayTrainWorker" for actor in state.actor_table(None).values())


@pytest.mark.usefixtures("ray_here")
def test_a_fleet_with_one_that_can_only_fail(
    half_sound: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = half_sound
    arguments = ["--config", str(file), "--run-dir", str(run)]
    before = workers_so_far()
    assert prepare.main(arguments) == 0
    assert train.main(arguments) == 1
    out, error = capsys.readouterr()
    why = "resnet-cbam: model.weights must fit test_resnet. Got: "
    assert f"1 of 2 trainings failed: {why}" in error
    assert workers_so_far() - before == 2 + 1, "a restart could not help, and was tried"
    said = read_json(run / "train" / "resnet-cbam" / "fold0" / "progress.json")
    assert (said["state"], said["reason"][:13]) == ("failed", "model.weights")
    assert (run / "train" / "efficientnet" / "fold0" / "done.json").exists()
    for rank, name in enumerate(("progress.json", "progress-rank1.json")):
        said = read_json(run / "train" / "efficientnet" / "fold0" / name)
        assert (said["state"], said["rank"], said["ranks"], said["kept"]) == ("done", rank, 2, 2)
        assert 0 <= said["wait_share"] <= 1
        assert said["images_per_s"] > 0
        assert list((run / "train" / "efficientnet" / "fold0" / "tensorboard" / f"rank{rank}").iterdir())
    assert "efficientnet epoch 2/2: loss 0." in out
    assert "efficientnet done: best epoch" in out
    for noise in ("INFO", "WARNING", "(pid=", "Traceback", "(raylet)", "(TrainController"):
        assert noise not in out + error
