"""Time of a whole training compared with its loop alone, part by part."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import torch
from jobs.benchmarks.fleet.timeline import (
    Timeline,
    TimelineCallback,
    read_timeline,
    record_event,
    run_timed_training,
)
from jobs.benchmarks.fleet.workload import PlainLoop, Workload, fleet_ray, workload
from jobs.benchmarks.measurement import CpuMeter, Report, median_and_range

from canopy.config import ModelConfig, OptimConfig, ResourcesConfig

STEPS = (
    ("controller: requested", "fit", "controller process"),
    ("controller: process and imports", "controller process", "controller up"),
    ("controller: until it requests workers", "controller up", "workers wanted"),
    ("placement, start of the worker process", "workers wanted", "worker process"),
    ("worker: process, Ray's imports", "worker process", "worker up"),
    ("worker: device and process group", "worker up", "group up"),
    ("worker: imports of Canopy", "group up", "entry"),
    ("worker: until the first batch", "entry", "first batch"),
    ("worker: steps, evaluation, checkpoints", "first batch", "last epoch"),
    ("worker: predictions and files", "last epoch", "entry left"),
    ("controller: notices the end", "entry left", "end seen"),
    ("controller: shuts the workers down", "end seen", "workers gone"),
    ("controller: the rest", "workers gone", "controller finished"),
    ("fit() returns", "controller finished", "fit returned"),
)
"""Parts of a training: description, first event, last event. Each part begins where the previous one ends."""


def fit(
    repeats: int = 3,
    backbone: str = "test_resnet",
    rows: int = 1024,
    size: int = 64,
    batch_size: int = 64,
    epochs: int = 4,
    out: Path | None = None,
) -> None:
    """A whole ``TorchTrainer.fit()`` of one small training, and a minimal loop over the same images.

    The first training on a new Ray is reported separately from the later ones. The parts follow each other
    and add up to the whole. Evaluation and checkpoints are part of the loop, and are also listed separately.
    """
    torch.set_num_threads(1)
    report = Report(f"fit, {backbone}, {epochs} epochs of {rows} images", out)
    optim = OptimConfig(epochs=epochs, batch_size=batch_size)
    with workload("fit", ModelConfig(backbone=backbone), optim, ResourcesConfig(), rows, size) as work:
        PlainLoop(work)()
        plain_s: list[float] = []
        timelines: list[Timeline] = []
        with fleet_ray():
            meter, cpu_s = CpuMeter(), list[float]()
            for _ in range(repeats + 1):
                plain = PlainLoop(work)
                start = time.perf_counter()
                plain()
                plain_s.append(time.perf_counter() - start)
                cpu_s.append(meter.measure(lambda: timelines.append(run_fit(work)) or 1).cpu_s)  # type: ignore[func-returns-value]
    report.add_value("plain loop, seconds", median_and_range(plain_s))
    first, later = timelines[0], timelines[1:]
    for description, since, until in STEPS:
        seconds = [one[until] - one[since] for one in later]
        report.add_value(
            f"{description}, seconds: first, later",
            f"{first[until] - first[since]:.2f}, {median_and_range(seconds)}",
        )
    for what in sorted(name for name in later[0] if name.startswith("seconds: ")):
        report.add_value(f"  within: {what[9:]}", median_and_range([one[what] for one in later]))
    for what in ("controller up", "worker up", "entry", "first batch"):
        report.add_value(
            f"  CPU of the process: {what}", median_and_range([one[f"CPU: {what}"] for one in later])
        )
    totals = [one["fit returned"] - one["fit"] for one in timelines]
    over = [total - plain for total, plain in zip(totals, plain_s, strict=True)]
    report.add_value("whole fit(), seconds: first, later", f"{totals[0]:.2f}, {median_and_range(totals[1:])}")
    report.add_value(
        "CPU seconds of all processes: first, later", f"{cpu_s[0]:.2f}, {median_and_range(cpu_s[1:])}"
    )
    report.add_value("overhead, seconds: first, later", f"{over[0]:.2f}, {median_and_range(over[1:])}")
    report.show()


def run_fit(work: Workload) -> Timeline:
    """Train the workload with the trainer that the fleet uses, and return the timeline."""
    from canopy.train.fleet import trainer

    path = work.run_dir.path("marks")
    for old in ("train", "marks"):
        shutil.rmtree(work.run_dir.path(old), ignore_errors=True)
    Path(path).unlink(missing_ok=True)
    config = work.experiment()
    trainer.configure_ray_train(config.fleet)
    record_event(path, "fit")
    callbacks = [TimelineCallback(path)]
    trainer.make_trainer(
        work.training_run(), work.chips, work.run_dir, config, run_timed_training, callbacks
    ).fit()
    record_event(path, "fit returned")
    return read_timeline(path)
