"""The fleet: trains all variants and folds, each as a Ray Train run, as many at once as the cluster holds.

One thread per training calls ``TorchTrainer.fit()``. The controller of a training is an actor, so a driver
process per training would gain nothing and cost its start. A failed training leaves the others untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace

import ray

from canopy.config import Experiment
from canopy.config.describe import describe_loss, describe_model
from canopy.data.loading.chip_source import ChipSource
from canopy.errors import FleetError
from canopy.runtime.console import Console
from canopy.runtime.metrics import set_gauge
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.fleet.failures import failure_reason
from canopy.train.fleet.resources import cluster_capacity, resource_request
from canopy.train.fleet.scheduler import ResourceRequest, longest_first, startable
from canopy.train.fleet.shutdown import ShutdownHandler
from canopy.train.fleet.trainer import FleetContext, configure_ray_train, fit
from canopy.train.monitor.live_display import LiveDisplay
from canopy.train.monitor.loggers import check_tracking
from canopy.train.training_run import TrainingRun

POLL_EVERY_S = 1.0
"""Polling interval in seconds of the queue and the progress files."""


def train_fleet(
    training_runs: Sequence[TrainingRun],
    chips: ChipSource,
    run_dir: RunDir,
    config: Experiment,
    console: Console,
) -> None:
    """Train all ``training_runs``, none of which is done yet.

    Raises:
        ConfigError: when a configured tracker is not installed.
        FleetError: when trainings failed, after all others have ended; names each with its reason.
        Stopped: when a signal ended the job, after all have made a checkpoint or the grace period was over.
    """
    check_tracking(config.tracking)
    configure_ray_train(config.fleet)
    requests = longest_first(resource_request(training_run, chips) for training_run in training_runs)
    by_name = {training_run.name: training_run for training_run in training_runs}
    ordered = [by_name[request.name] for request in requests]
    display = LiveDisplay(ordered, run_dir, console, config.fleet.table_minutes)
    shutdown = ShutdownHandler(run_dir, config.fleet.stop_grace_s, console)
    context = FleetContext(chips, run_dir, config, shutdown.stopping, display.on_wait)
    with (
        ThreadPoolExecutor(max_workers=len(training_runs), thread_name_prefix="fit") as pool,
        shutdown,
        display,
    ):
        fleet = Fleet(by_name, requests, pool, context, display, shutdown)
        fleet.run()
    if shutdown.requested:
        raise shutdown.stopped_error()
    if fleet.failed:
        reasons = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in fleet.failed.items())
        raise FleetError(
            f"{len(fleet.failed)} of {len(training_runs)} trainings failed: {reasons}. The others are kept; "
            "start again to train only what is missing."
        )


class Fleet:
    """The trainings that wait, that run and that have failed.

    Args:
        training_runs: all trainings by name.
        requests: their resource requests in the order of preference.
        pool: a thread per training.
        context: passed to :func:`canopy.train.fleet.trainer.fit`.
        display: shows the trainings.
        shutdown: handles signals.
    """

    def __init__(
        self,
        training_runs: dict[str, TrainingRun],
        requests: Sequence[ResourceRequest],
        pool: ThreadPoolExecutor,
        context: FleetContext,
        display: LiveDisplay,
        shutdown: ShutdownHandler,
    ) -> None:
        self._training_runs, self._pool, self._context = training_runs, pool, context
        self._display, self._shutdown = display, shutdown
        self._waiting = {request.name: request for request in requests}
        self._running: dict[Future[str | None], ResourceRequest] = {}
        self._done = 0
        self.failed: dict[str, str] = {}
        """Reason of each failed training, by its name."""

    def run(self) -> None:
        """Run until every training has ended."""
        while self._waiting or self._running:
            self._start()
            ended, _ = wait(self._running, timeout=POLL_EVERY_S, return_when=FIRST_COMPLETED)
            for future in ended:
                self._on_end(self._training_runs[self._running.pop(future).name], future)
            running = [self._training_runs[request.name] for request in self._running.values()]
            self._display.update(running)
            self._set_gauges()
            if self._shutdown.requested:
                self._waiting.clear()
                self._shutdown.request_stop(running)
                if self._shutdown.should_abort(running):
                    ray.shutdown()  # ends every fit() that still waits

    def _set_gauges(self) -> None:
        """Show the trainings by their state; those that a signal ended are in none."""
        counts = {
            "queued": len(self._waiting),
            "running": len(self._running),
            "done": self._done,
            "failed": len(self.failed),
        }
        run = files.shown(self._context.run_dir.root)
        for state, count in counts.items():
            set_gauge("canopy_trainings", count, run=run, state=state)

    def _start(self) -> None:
        """Start the trainings that fit now."""
        if not self._waiting:
            return
        running = [
            replace(
                request,
                work=request.work * self._display.remaining_fraction(self._training_runs[request.name]),
            )
            for request in self._running.values()
        ]
        nodes = cluster_capacity(self._context.config.fleet)
        for request in startable(list(self._waiting.values()), running, nodes):
            del self._waiting[request.name]
            training_run = self._training_runs[request.name]
            self._display.on_start(training_run, describe_training(training_run))
            self._running[self._pool.submit(fit, training_run, self._context)] = request

    def _on_end(self, training_run: TrainingRun, future: Future[str | None]) -> None:
        """Note how a training has ended."""
        if self._shutdown.on_training_end(training_run, future):
            return
        error = future.exception()
        if error is None:
            self._done += 1
            self._display.on_end(training_run)
        else:
            self.failed[training_run.name] = failure_reason(error)
            self._display.on_failure(training_run, self.failed[training_run.name])


def describe_training(training_run: TrainingRun) -> str:
    """Network, loss, epochs and workers of a training in words."""
    variant, optim = training_run.variant, training_run.variant.optim
    epochs = f"{optim.epochs}{f' + {optim.rebalance_epochs}' if optim.rebalance_epochs else ''} epochs"
    scale = variant.scale
    workers = f"{scale.workers} worker{'s' if scale.workers > 1 else ''}"
    if scale.min_workers is not None:
        workers = f"{scale.min_workers} to {workers}"
    return f"{describe_model(variant.model)}, {describe_loss(variant.loss.model_dump())}, {epochs}, {workers}"
