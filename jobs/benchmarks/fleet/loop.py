"""The worker's training loop beside the plainest loop in torch."""

from __future__ import annotations

from pathlib import Path

import torch
from jobs.benchmarks.fleet.workload import OurLoop, PlainLoop, Workload, ray_for_fleets, workload
from jobs.benchmarks.measurement import CpuMeter, Report, alternate, process_ids

from canopy.config import ModelConfig, OptimConfig, ScaleConfig


def loop(
    repeats: int = 5,
    backbones: tuple[str, ...] = ("test_resnet",),
    rows: int = 1024,
    size: int = 64,
    batch_size: int = 64,
    epochs: int = 2,
    out: Path | None = None,
) -> None:
    """The worker's loop beside a hand-written one: same network, optimizer, schedule, batches, chips.

    Ours is all that a worker does between its first batch and its predictions: batches from Ray Data, the
    loop, progress file, TensorBoard, Ray's metrics. Theirs gathers, normalises and trains, in fifteen lines.
    Evaluation and checkpoints are left out on both sides; both train with one thread. CPU of ours includes
    the data tasks and Ray's daemons.
    """
    torch.set_num_threads(1)
    for backbone in backbones:
        report = Report(f"loop, {backbone}, {size} px", out)
        model = ModelConfig(backbone=backbone)
        optim = OptimConfig(epochs=epochs, batch_size=batch_size)
        with workload(f"loop-{backbone}", model, optim, ScaleConfig(), rows, size) as work:
            compare_loops(work, repeats, report)
        report.show()


def compare_loops(work: Workload, repeats: int, report: Report) -> None:
    """Both loops over the same work, turn by turn."""
    PlainLoop(work)()  # warm
    before = process_ids()
    losses: dict[str, float] = {}
    shares: list[float] = []
    with ray_for_fleets():
        OurLoop(work)()
        our_meter, plain_meter = CpuMeter(before), CpuMeter(process_ids() - before)

        def ours() -> None:
            contender = OurLoop(work)
            report.add("ours", our_meter.read(contender))
            losses["ours"] = contender.last_loss
            shares.append(contender.wait_share)

        def plain() -> None:
            contender = PlainLoop(work)
            report.add("plain loop", plain_meter.read(contender))
            losses["plain loop"] = contender.last_loss

        alternate([ours, plain], repeats)
    report.compare("ours", "plain loop", ">= 0.97")
    report.note("mean loss of the last epoch", losses)
    report.note("share of ours spent getting batches", [round(share, 3) for share in shares])
