"""The fleet: every variant (and fold) at once, each a Ray Train run of its own, as many as fit.

One thread per unit calls ``TorchTrainer.fit()``: its controller is an actor, so nothing is gained by a
driver process for each, and a process start with its imports is saved. A unit that fails leaves the others
untouched; at the end all failures are told together.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from canopy import files
from canopy.config import Experiment, ScaleConfig
from canopy.console import Console, clock
from canopy.data.stream import TASK_CPUS, Chips
from canopy.errors import FleetError
from canopy.rundir import RunDir
from canopy.train.unit import Unit
from canopy.train.worker import train_unit

POLL_S = 1.0
LINE_EVERY_S = 10.0
"""Seconds between lines about a unit within one epoch."""


def train_fleet(
    units: Sequence[Unit], chips: Chips, run: RunDir, config: Experiment, console: Console
) -> None:
    """Train ``units``, of which none is done yet.

    Raises:
        FleetError: when units failed, after all others have ended; names each with its reason.
    """
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(config.capacity_timeout_s)
    waiting = list(units)
    running: dict[Future[None], Unit] = {}
    failed: dict[str, str] = {}
    watch = Watch(run, console)
    with ThreadPoolExecutor(max_workers=len(units), thread_name_prefix="fit") as pool:
        while waiting or running:
            for unit in startable(waiting, list(running.values())):
                waiting.remove(unit)
                console.say("train", f"{unit.name} starts: {describe(unit)}")
                running[pool.submit(fit, unit, chips, run, config)] = unit
            ended, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            for future in ended:
                unit = running.pop(future)
                if (error := future.exception()) is not None:
                    failed[unit.name] = reason(error)
                    console.say("train", f"{unit.name} FAILED: {failed[unit.name]}")
                else:
                    watch.ended(unit)
            watch.look(list(running.values()))
    if failed:
        told = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise FleetError(
            f"{len(failed)} of {len(units)} trainings failed: {told}. The others are kept; start again to "
            "train only what is missing."
        )


def startable(waiting: Sequence[Unit], running: Sequence[Unit]) -> list[Unit]:
    """Which waiting units fit beside the running ones, in order.

    When nothing runs, the first starts even if the cluster is too small today: asking for it is what makes
    an autoscaler bring nodes, and the capacity time-out bounds the wait.
    """
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    used = [need(unit.variant.scale) for unit in running]
    chosen: list[Unit] = []
    for unit in waiting:
        wanted = need(unit.variant.scale)
        fits = all(
            sum(u.get(name, 0.0) for u in used) + amount <= total.get(name, 0.0) + 1e-6
            for name, amount in wanted.items()
        )
        if fits or not (running or chosen):
            chosen.append(unit)
            used.append(wanted)
    return chosen


def need(scale: ScaleConfig) -> dict[str, float]:
    """Resources of a training: its workers and the data tasks that feed each of them."""
    wanted = {"CPU": scale.workers * (scale.cpus_per_worker + TASK_CPUS)}
    if scale.gpus_per_worker:
        wanted["GPU"] = scale.workers * scale.gpus_per_worker
    if scale.accelerator:
        wanted[scale.accelerator] = float(scale.workers)
    return wanted


def describe(unit: Unit) -> str:
    """What a person wants to know of a unit at its start."""
    variant = unit.variant
    cbam = "" if variant.model.cbam == "none" else f" + CBAM ({variant.model.cbam})"
    loss: str = variant.loss.name
    if loss == "focal":
        alpha = variant.loss.alpha
        loss += f" (γ {variant.loss.gamma:.2f}, α {f'{alpha:.2f}' if isinstance(alpha, float) else alpha})"
    workers = f"{variant.scale.workers} worker{'s' if variant.scale.workers > 1 else ''}"
    return f"{variant.model.backbone}{cbam}, {loss}, {variant.optim.epochs} epochs, {workers}"


def fit(unit: Unit, chips: Chips, run: RunDir, config: Experiment) -> None:
    """One training, from its newest checkpoint if there is one; marks the unit as done."""
    scale = unit.variant.scale
    resources = {"CPU": scale.cpus_per_worker}
    if scale.gpus_per_worker:
        resources["GPU"] = scale.gpus_per_worker
    if scale.accelerator:
        resources[scale.accelerator] = 1.0
    filesystem, storage = files.resolve(run.path("train", "ray"))
    started = time.monotonic()
    TorchTrainer(
        train_unit,
        train_loop_config={"unit": unit, "chips": chips},
        scaling_config=ScalingConfig(
            num_workers=scale.workers, use_gpu=scale.gpus_per_worker > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            # Named by what it computes: a second start finds its checkpoints, a changed config does not.
            name=f"{unit.variant.name}-fold{unit.fold}-{unit.fingerprint[:12]}",
            storage_path=storage,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=config.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),  # ours holds the newest and the best weights
        ),
    ).fit()
    facts = files.read_json(run.path(unit.directory, "facts.json"))
    run.finish(unit.directory, unit.fingerprint, seconds=round(time.monotonic() - started, 2), **facts)


def reason(error: BaseException) -> str:
    """The innermost cause, in one line: what a person can act on."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = next(iter(failures.values()))
    while (cause := getattr(error, "cause", None) or error.__cause__) is not None:
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@dataclass
class Watch:
    """Tells the console what the units' progress files say."""

    run: RunDir
    console: Console
    since: float = field(default_factory=time.time)
    _told: dict[str, tuple[Any, float]] = field(default_factory=dict)

    def look(self, units: Sequence[Unit]) -> None:
        """A line for each unit that has come to a new epoch, or has been silent for a while."""
        for unit in units:
            progress = self._read(unit)
            if progress is None:
                continue
            where = (progress["state"], progress.get("epoch"))
            told, at = self._told.get(unit.name, (None, 0.0))
            if where != told or time.monotonic() - at > LINE_EVERY_S:
                self._told[unit.name] = (where, time.monotonic())
                self.console.say("train", f"{unit.name} {self._line(progress)}")

    def ended(self, unit: Unit) -> None:
        """The last line about a unit."""
        history = files.read_json(self.run.path(unit.directory, "history.json"))
        best = max(history, key=lambda record: record["score"])
        line = f"{unit.name} done: best epoch {best['epoch']:.0f}, val mAP {best['val_map']:.3f}"
        self.console.say("train", line)

    def _read(self, unit: Unit) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = files.read_json(self.run.path(unit.directory, "progress.json"))
        except (OSError, ValueError):
            return None
        return found if found["time"] >= self.since else None  # else left by an earlier start

    def _line(self, progress: dict[str, Any]) -> str:
        if progress["state"] != "training" or "step" not in progress:
            return str(progress["state"])
        where = f"epoch {progress['epoch']}/{progress['epochs']}, step {progress['step']}/{progress['steps']}"
        if "left_s" not in progress:
            return where
        return f"{where}, {progress['images_per_s']:,.0f} images/s, {clock(progress['left_s'])} left"
