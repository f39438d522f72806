"""The fleet: every variant (and fold) at once, each a Ray Train run of its own, as many as fit.

One thread per unit calls ``TorchTrainer.fit()``: its controller is an actor, so nothing is gained by a
driver process for each, and a process start with its imports is saved. A unit that fails leaves the others
untouched; at the end all failures are told together.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from canopy.config import Experiment, FleetConfig, ScaleConfig
from canopy.config.describe import loss_words, network_words
from canopy.data.loading.loader import TASK_CPUS, Chips
from canopy.errors import FleetError
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.checkpoint.manager import checkpoint_config, mend_list, storage_refusals
from canopy.train.fleet.controller import CopyList, ElasticPatience, EndAtOnce
from canopy.train.fleet.failures import chain, reason
from canopy.train.fleet.scheduler import Amounts, Ask, longest_first, startable, with_promise, work_of
from canopy.train.fleet.shutdown import ShutdownHandler
from canopy.train.fleet.worker import run_training
from canopy.train.monitor.live_display import LiveDisplay
from canopy.train.monitor.loggers import check_tracking
from canopy.train.training_run import TrainingRun

POLL_S = 1.0
LOOK_S = 0.5


def train_fleet(
    training_runs: Sequence[TrainingRun], chips: Chips, run: RunDir, config: Experiment, console: Console
) -> None:
    """Train ``units``, of which none is done yet.

    Raises:
        ConfigError: when a tracker is asked for that is not installed.
        FleetError: when units failed, after all others have ended; names each with its reason.
        Stopped: when a signal asked for it, after all have kept a checkpoint or their time was up.
    """
    check_tracking(config.tracking)
    set_up_ray_train(config.fleet)
    asks = longest_first(ask_of(training_run, chips) for training_run in training_runs)
    by_name = {training_run.name: training_run for training_run in training_runs}
    waiting = {ask.name: ask for ask in asks}
    running: dict[Future[str | None], Ask] = {}
    failed: dict[str, str] = {}
    board = LiveDisplay([by_name[ask.name] for ask in asks], run, console, config.fleet.table_minutes)
    stop = ShutdownHandler(run, config.fleet.stop_grace_s, console)
    with ThreadPoolExecutor(max_workers=len(training_runs), thread_name_prefix="fit") as pool, stop, board:
        while waiting or running:
            now = [replace(ask, work=ask.work * board.left(by_name[ask.name])) for ask in running.values()]
            nodes = capacity(config.fleet) if waiting else []
            for ask in startable(list(waiting.values()), now, nodes):
                training_run = by_name[waiting.pop(ask.name).name]
                board.started(training_run, describe(training_run))
                running[pool.submit(fit, training_run, chips, run, config)] = ask
            ended, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            for future in ended:
                training_run = by_name[running.pop(future).name]
                if stop.took(training_run, future):
                    continue
                if (error := future.exception()) is not None:
                    failed[training_run.name] = why_failed(error)
                    board.failed(training_run, failed[training_run.name])
                else:
                    board.ended(training_run)
            board.look([by_name[ask.name] for ask in running.values()])
            if stop.asked:
                waiting.clear()
                if stop.over([by_name[ask.name] for ask in running.values()]):
                    ray.shutdown()  # with it, whatever waits in fit() ends
    if stop.asked:
        raise stop.stopped()
    if failed:
        told = "; ".join(f"{name}: {why.rstrip('.')}" for name, why in failed.items())
        raise FleetError(
            f"{len(failed)} of {len(training_runs)} trainings failed: {told}. The others are kept; start again to "
            "train only what is missing."
        )


def set_up_ray_train(config: FleetConfig) -> None:
    """Settings that Ray Train takes from the environment of whoever starts a training."""
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(config.capacity_timeout_s)
    # How often its controller looks at the workers: it sees their reports and their end no sooner.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(LOOK_S))


def ask_of(training_run: TrainingRun, chips: Chips) -> Ask:
    """What ``unit`` asks for. All units learn from the same share of the chips, so their total will do."""
    return Ask(
        training_run.name,
        work_of(training_run.variant, len(chips.uris), chips.size),
        bundles(training_run.variant.scale),
    )


def bundles(scale: ScaleConfig) -> tuple[Amounts, ...]:
    """Resources of a training: each worker, and the data task that feeds it, wherever that may run."""
    return (worker_resources(scale),) * scale.workers + ({"CPU": TASK_CPUS},) * scale.workers


def worker_resources(scale: ScaleConfig) -> Amounts:
    """Resources of one worker."""
    resources = {"CPU": scale.cpus_per_worker}
    if scale.gpus_per_worker:
        resources["GPU"] = scale.gpus_per_worker
    if scale.accelerator:
        resources[scale.accelerator] = 1.0
    return resources


def capacity(config: FleetConfig) -> list[Amounts]:
    """What each living node has, and what the autoscaler may still bring."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return with_promise(nodes, config.promised or published_limits())


def published_limits() -> Amounts:
    """What the autoscaler says that the cluster may grow to; nothing where it does not say."""
    state: Any = ray._private.state.state
    limits: Mapping[str, float] | None = state.get_max_resources_from_cluster_config()
    return {name: float(amount) for name, amount in (limits or {}).items()}


def describe(training_run: TrainingRun) -> str:
    """What a person wants to know of a unit at its start."""
    variant, optim = training_run.variant, training_run.variant.optim
    epochs = f"{optim.epochs}{f' + {optim.rebalance_epochs}' if optim.rebalance_epochs else ''} epochs"
    scale = variant.scale
    workers = f"{scale.workers} worker{'s' if scale.workers > 1 else ''}"
    if scale.min_workers is not None:
        workers = f"{scale.min_workers} to {workers}"
    return f"{network_words(variant.model)}, {loss_words(variant.loss.model_dump())}, {epochs}, {workers}"


def fit(training_run: TrainingRun, chips: Chips, run: RunDir, config: Experiment) -> str | None:
    """One training, from its newest checkpoint if there is one; marks the unit as done.

    Returns:
        Where its newest checkpoint stands, when it was told to stop; None when it is done.
    """
    started = time.monotonic()
    with storage_refusals(training_run.name, files.shown(run.path("train", "ray"))):
        result: Any = trainer_of(training_run, chips, run, config).fit()
    if result.return_value is not None:
        return str(result.return_value)
    facts = files.read_json(run.path(training_run.directory, "facts.json"))
    run.finish(
        training_run.directory,
        training_run.fingerprint,
        seconds=round(time.monotonic() - started, 2),
        **facts,
    )
    return None


def trainer_of(
    training_run: TrainingRun,
    chips: Chips,
    run: RunDir,
    config: Experiment,
    entry: Callable[[dict[str, Any]], Any] = run_training,
    callbacks: Sequence[Any] = (),
) -> TorchTrainer:
    """Ray Train's trainer of ``unit``.

    Args:
        unit: to train.
        chips: decoded images.
        run: where it writes.
        config: of the whole experiment.
        entry: what its workers run.
        callbacks: of Ray Train's controller, beside ours.
    """
    scale = training_run.variant.scale
    filesystem, storage = files.resolve(run.path("train", "ray"))
    # Named by what it computes: a second start finds its checkpoints, a changed config does not.
    name = f"{training_run.variant.name}-fold{training_run.fold}-{training_run.fingerprint[:12]}"
    folder = run.path("train", "ray", name)
    mend_list(folder)
    workers: Any = scale.workers  # (Ray's stubs do not know of elastic ones)
    ours: list[Any] = [EndAtOnce(), CopyList(folder)]
    if scale.min_workers is not None:
        workers = scale.min_workers, scale.workers
        ours.append(ElasticPatience(config.fleet.capacity_timeout_s))
    job = {"unit": training_run, "chips": chips, "tracking": config.tracking, "fleet": config.fleet}
    return TorchTrainer(
        # Bound, since train_loop_config goes to the controller, which would import all that is in it.
        partial(entry, job),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=scale.gpus_per_worker > 0,
            resources_per_worker=worker_resources(scale),
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(**failure_limits(config.fleet)),
            checkpoint_config=checkpoint_config(config.fleet.keep_checkpoints),
            callbacks=[*ours, *callbacks],
        ),
    )


def failure_limits(config: FleetConfig) -> dict[str, Any]:
    """How often Ray Train may start a training again, by what went wrong: all finite."""
    names = ("max_failures", "max_preemption_failures", "controller_failure_limit")
    return {name: getattr(config, name) for name in names}


def why_failed(error: BaseException) -> str:
    """The reason in one line, with our own words where Ray's are a page."""
    timeout = next((one for one in chain(error) if type(one).__name__ == TIMEOUT), None)
    if timeout is None:
        return reason(error)
    waited = os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"]
    workers: int = timeout.num_workers  # type: ignore[attr-defined]
    return (
        f"the cluster had no room for its {workers} workers within {waited} s (fleet.capacity_timeout_s), "
        "several times over. Give the cluster more, or the workers less."
    )


TIMEOUT = "WorkerGroupStartupTimeoutError"
