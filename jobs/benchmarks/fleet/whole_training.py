"""What a whole training costs beside its loop, part by part."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import torch
from jobs.benchmarks.fleet.timestamps import ControllerMarks, Marks, mark, read_marks, timed_training
from jobs.benchmarks.fleet.workload import PlainLoop, Workload, ray_for_fleets, workload
from jobs.benchmarks.measurement import CpuMeter, Report, spread

from canopy.config import ModelConfig, OptimConfig, ScaleConfig

STEPS = (
    ("controller: asked for", "fit", "controller process"),
    ("controller: process and imports", "controller process", "controller up"),
    ("controller: to the workers' turn", "controller up", "workers wanted"),
    ("placement, and a process for the worker", "workers wanted", "worker process"),
    ("worker: process, Ray's imports", "worker process", "worker up"),
    ("worker: device and process group", "worker up", "group up"),
    ("worker: our imports", "group up", "entry"),
    ("worker: to the first batch", "entry", "first batch"),
    ("worker: steps, evaluation, checkpoints", "first batch", "last epoch"),
    ("worker: predictions and files", "last epoch", "entry left"),
    ("controller: notices the end", "entry left", "end seen"),
    ("controller: workers down", "end seen", "workers gone"),
    ("controller: the rest", "workers gone", "controller finished"),
    ("fit() returns", "controller finished", "fit returned"),
)
"""Parts of a training's time, each from one mark to the next."""


def fit(
    repeats: int = 3,
    backbone: str = "test_resnet",
    rows: int = 1024,
    size: int = 64,
    batch_size: int = 64,
    epochs: int = 4,
    out: Path | None = None,
) -> None:
    """A whole ``TorchTrainer.fit()`` of one small training beside the plainest loop over the same images.

    The first on a fresh Ray stands apart from the later ones. The parts follow one another and add up to the
    whole; evaluation and checkpoints lie within the loop's part, and are named once more below it.
    """
    torch.set_num_threads(1)
    report = Report(f"fit, {backbone}, {epochs} epochs of {rows} images", out)
    optim = OptimConfig(epochs=epochs, batch_size=batch_size)
    with workload("fit", ModelConfig(backbone=backbone), optim, ScaleConfig(), rows, size) as work:
        PlainLoop(work)()
        plain_s: list[float] = []
        marks: list[Marks] = []
        with ray_for_fleets():
            meter, cpu_s = CpuMeter(), list[float]()
            for _ in range(repeats + 1):
                plain = PlainLoop(work)
                start = time.perf_counter()
                plain()
                plain_s.append(time.perf_counter() - start)
                cpu_s.append(meter.read(lambda: marks.append(one_fit(work)) or 1).cpu_s)  # type: ignore[func-returns-value]
    report.note("plain loop, seconds", spread(plain_s))
    first, later = marks[0], marks[1:]
    for what, since, until in STEPS:
        seconds = [one[until] - one[since] for one in later]
        report.note(
            f"{what}, seconds: first, later",
            f"{first[until] - first[since]:.2f}, {spread(seconds)}",
        )
    for what in sorted(name for name in later[0] if name.startswith("seconds: ")):
        report.note(f"  within: {what[9:]}", spread([one[what] for one in later]))
    for what in ("controller up", "worker up", "entry", "first batch"):
        report.note(f"  CPU of the process: {what}", spread([one[f"CPU: {what}"] for one in later]))
    totals = [one["fit returned"] - one["fit"] for one in marks]
    over = [total - plain for total, plain in zip(totals, plain_s, strict=True)]
    report.note("whole fit(), seconds: first, later", f"{totals[0]:.2f}, {spread(totals[1:])}")
    report.note("CPU seconds of all processes: first, later", f"{cpu_s[0]:.2f}, {spread(cpu_s[1:])}")
    report.note("overhead, seconds: first, later", f"{over[0]:.2f}, {spread(over[1:])}")
    report.show()


def one_fit(work: Workload) -> Marks:
    """Train the workload through the fleet's own trainer; its timeline."""
    from canopy.train.fleet import trainer

    path = work.run.path("marks")
    for old in ("train", "marks"):
        shutil.rmtree(work.run.path(old), ignore_errors=True)
    Path(path).unlink(missing_ok=True)
    config = work.experiment()
    trainer.configure_ray_train(config.fleet)
    mark(path, "fit")
    callbacks = [ControllerMarks(path)]
    trainer.make_trainer(
        work.training_run(), work.chips, work.run, config, timed_training, callbacks
    ).fit()
    mark(path, "fit returned")
    return read_marks(path)
