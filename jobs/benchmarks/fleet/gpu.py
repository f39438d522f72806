"""Training at 224 pixels on a GPU: images per second, data wait and memory, eager and compiled."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Literal

import torch
from jobs.benchmarks.chip_data import CORES
from jobs.benchmarks.fleet.workload import Workload, fleet_ray, workload
from jobs.benchmarks.measurement import Report, median_and_range
from torch import Tensor

from canopy.config import AugmentConfig, ModelConfig, OptimConfig, ResourcesConfig, derive
from canopy.errors import ConfigError
from canopy.train.loop import TrainState, train_step
from canopy.train.model_wrappers import compile_model
from canopy.train.training_phase import TrainingPhase

WARM_STEPS = 10
"""Steps before each measurement, not timed."""
PUBLISHED = {
    "resnet50": "1,218 images/s at 224 px, batch 512",
    "efficientnet_b3": "572 images/s at 288 px, batch 128",
}
"""Training speed published by timm for an RTX 3090, AMP (float16), channels_last, PyTorch 1.12, not compiled.
Source: ``results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv`` of huggingface/pytorch-image-models."""
Batches = Iterator[tuple[Tensor, Tensor]]


def gpu(
    device: Literal["cuda", "cpu"] = "cuda",
    backbones: tuple[str, ...] = ("resnet50", "efficientnet_b3"),
    repeats: int = 3,
    rows: int = 4096,
    size: int = 224,
    batch_size: int = 256,
    steps: int = 50,
    compiling: bool = True,
    cpus: int = CORES,
    out: Path | None = None,
) -> None:
    """Training images per second in bfloat16, channels_last, fused AdamW, flips and turns on the device.

    "resident" trains on one batch that stays on the device, "stream" on batches from Ray Data. The cost of
    the data is one minus their ratio. The share of time spent waiting for batches is an upper bound for it,
    because the device computes meanwhile. Both are measured with and without torch.compile.
    "Synchronizations" are operations of a step that make the host wait for the device.

    Args:
        device: cuda, or cpu to try the command without a GPU.
        backbones: timm names.
        repeats: number of repeats of each measurement.
        rows: number of random chips.
        size: height and width of the chips in pixels.
        batch_size: images in a step.
        steps: timed steps of a measurement, after ten that are not timed.
        compiling: also measure with torch.compile.
        cpus: logical CPUs for Ray's data tasks.
        out: append records to this file.

    Raises:
        ConfigError: when there is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        remedy = "Run it on a machine with a GPU, or try it with --device cpu."
        raise ConfigError("The gpu benchmark", "needs a GPU", "none that torch can use", remedy)
    optim = OptimConfig(batch_size=batch_size, precision="bfloat16", epochs=1_000_000)
    flips = AugmentConfig(place="device")
    for backbone in backbones:
        name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
        report = Report(f"gpu, {backbone}, {size} px, batch {batch_size}, {name}", out)
        model = ModelConfig(backbone=backbone)
        with (
            workload(f"gpu-{backbone}", model, optim, ResourcesConfig(), rows, size, flips) as work,
            fleet_ray(cpus),
        ):
            for compiled in (False, True) if compiling else (False,):
                measure(GpuTraining.of(work, device, compiled), repeats, steps, report)
        report.add_value("published by timm, on an RTX 3090", PUBLISHED.get(backbone, "none"))
        report.show()


@dataclass
class GpuTraining:
    """A network in training on a device.

    Args:
        task: the training task of a single worker.
        train_state: network, loss, optimizer and schedule.
        compiled: whether torch.compile is applied.
    """

    phase: TrainingPhase
    train_state: TrainState
    compiled: bool

    @classmethod
    def of(cls, work: Workload, device: str, compiled: bool) -> GpuTraining:
        """Set up the training as a single worker does."""
        scale = derive(work.variant.scale, compile=compiled)
        phase = work.phase(device)
        return cls(
            phase,
            phase.train_state(lambda network: compile_model(network, scale)),
            compiled,
        )

    def train(self, batches: Batches, steps: int) -> tuple[float, float]:
        """Images per second and the share of time spent waiting for data, over ``steps`` steps."""
        optim, device = self.phase.variant.optim, self.phase.dist_context.device
        for _ in range(WARM_STEPS):
            train_step(self.train_state, *next(batches), optim)
        synchronize(device)
        start, waited_s = time.perf_counter(), 0.0
        for _ in range(steps):
            before = time.perf_counter()
            images, targets = next(batches)
            waited_s += time.perf_counter() - before
            train_step(self.train_state, images, targets, optim)
        synchronize(device)
        passed_s = time.perf_counter() - start
        return steps * optim.batch_size / passed_s, waited_s / passed_s

    def count_synchronizations(self, batches: Batches) -> str:
        """Count the operations that make the host wait for the GPU, in one step and in fetching its batch."""
        if self.phase.dist_context.device.type != "cuda":
            return "not counted on a CPU"
        counts: list[int] = []
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for stage in ("batch", "step"):
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    if stage == "batch":
                        images, targets = next(batches)
                    else:
                        train_step(self.train_state, images, targets, self.phase.variant.optim)
                counts.append(sum("synchroniz" in str(one.message) for one in caught))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return f"{counts[0]} for the batch, {counts[1]} in the step"


def measure(bench: GpuTraining, repeats: int, steps: int, report: Report) -> None:
    """Measure training on both sources of batches, alternately."""
    kind = "compiled" if bench.compiled else "eager"
    device = bench.phase.dist_context.device
    stream = bench.phase.batches(0)
    one = next(stream)
    start = time.perf_counter()
    train_step(bench.train_state, *one, bench.phase.variant.optim)
    synchronize(device)
    report.add_value(f"{kind}: first step, seconds", round(time.perf_counter() - start, 2))
    resident, streamed, shares = [], [], []
    for _ in range(repeats):
        resident.append(bench.train(repeat(one), steps)[0])
        rate, share = bench.train(stream, steps)
        streamed.append(rate)
        shares.append(share)
    report.add_value(f"{kind}: images/s, resident", median_and_range(resident))
    report.add_value(f"{kind}: images/s, stream", median_and_range(streamed))
    report.add_value(f"{kind}: share of time waiting for batches, at most", median_and_range(shares))
    report.add_value(f"{kind}: synchronizations with the device", bench.count_synchronizations(stream))
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**30
        torch.cuda.reset_peak_memory_stats(device)
        report.add_value(f"{kind}: peak memory, GiB", round(peak, 2))
    ratios = [real / still for real, still in zip(streamed, resident, strict=True)]
    report.add_ratio(f"{kind}: images/s, stream / resident", ratios, ">= 0.95")


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
