"""Speed of the worker's training loop, compared with a minimal loop in torch."""

from __future__ import annotations

from pathlib import Path

import torch
from jobs.benchmarks.fleet.workload import OurLoop, PlainLoop, Workload, fleet_ray, workload
from jobs.benchmarks.measurement import CpuMeter, Report, alternate, child_process_ids

from canopy.config import ModelConfig, OptimConfig, ResourcesConfig


def loop(
    repeats: int = 5,
    backbones: tuple[str, ...] = ("test_resnet",),
    rows: int = 1024,
    size: int = 64,
    batch_size: int = 64,
    epochs: int = 2,
    out: Path | None = None,
) -> None:
    """The worker's loop and a hand-written loop: same network, optimizer, schedule, batches and chips.

    "ours" does everything that a worker does between its first batch and its predictions: batches from Ray
    Data, the loop, the progress file, TensorBoard, Ray's metrics. "plain loop" gathers, normalizes and
    trains, in fifteen lines. Evaluation and checkpoints are omitted on both sides; both train with one
    thread. The CPU time of "ours" includes the data tasks and Ray's daemons.
    """
    torch.set_num_threads(1)
    for backbone in backbones:
        report = Report(f"loop, {backbone}, {size} px", out)
        model = ModelConfig(backbone=backbone)
        optim = OptimConfig(epochs=epochs, batch_size=batch_size)
        with workload(f"loop-{backbone}", model, optim, ResourcesConfig(), rows, size) as work:
            compare_loops(work, repeats, report)
        report.show()


def compare_loops(work: Workload, repeats: int, report: Report) -> None:
    """Measure both loops on the same training, alternately."""
    PlainLoop(work)()  # warm up
    before = child_process_ids()
    losses: dict[str, float] = {}
    shares: list[float] = []
    with fleet_ray():
        OurLoop(work)()
        our_meter, plain_meter = CpuMeter(before), CpuMeter(child_process_ids() - before)

        def ours() -> None:
            contender = OurLoop(work)
            report.add_reading("ours", our_meter.measure(contender))
            losses["ours"] = contender.last_loss
            shares.append(contender.wait_share)

        def plain() -> None:
            contender = PlainLoop(work)
            report.add_reading("plain loop", plain_meter.measure(contender))
            losses["plain loop"] = contender.last_loss

        alternate([ours, plain], repeats)
    report.compare("ours", "plain loop", ">= 0.97")
    report.add_value("mean loss of the last epoch", losses)
    report.add_value("share of Canopy's time spent getting batches", [round(share, 3) for share in shares])
