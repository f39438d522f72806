"""Training at 224 pixels on a GPU: images per second, waiting for data, memory, eager and compiled."""

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
from jobs.benchmarks.fleet.workload import Workload, ray_for_fleets, workload
from jobs.benchmarks.measurement import Report, spread
from torch import Tensor

from canopy.config import AugmentConfig, ModelConfig, OptimConfig, ScaleConfig, derive
from canopy.errors import ConfigError
from canopy.train.distributed import compile_model
from canopy.train.loop import TrainState, step_once
from canopy.train.task import TrainTask

WARM_STEPS = 10
PUBLISHED = {
    "resnet50": "1,218 images/s at 224 px, batch 512",
    "efficientnet_b3": "572 images/s at 288 px, batch 128",
}
"""timm's own, on another card: an RTX 3090, AMP (float16), channels_last, PyTorch 1.12, not compiled;
``results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv`` of huggingface/pytorch-image-models."""
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
    """Training images per second in bfloat16, channels_last, with fused AdamW, flips and turns on the device.

    "resident" trains on one batch that lies on the device; "stream" on what Ray Data brings. What the data
    costs is one minus their ratio; the share of time spent waiting for batches bounds it from above, since
    the device goes on meanwhile. Each with and without torch.compile. "Waits for the device" counts the
    places where a step makes the host wait.

    Args:
        device: cuda, or cpu to try the command where no GPU is.
        backbones: by timm's names.
        repeats: of each measurement.
        rows: random chips.
        size: of a chip in pixels.
        batch_size: images of a step.
        steps: of a measurement, after ten that are not counted.
        compiling: also with torch.compile.
        cpus: logical ones that Ray's data tasks may use.
        out: append records to this file.

    Raises:
        ConfigError: when there is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        remedy = "Run it where one is, or try it with --device cpu."
        raise ConfigError("The gpu benchmark", "needs a GPU", "none that torch can use", remedy)
    optim = OptimConfig(batch_size=batch_size, precision="bfloat16", epochs=1_000_000)
    flips = AugmentConfig(place="device")
    for backbone in backbones:
        name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
        report = Report(f"gpu, {backbone}, {size} px, batch {batch_size}, {name}", out)
        model = ModelConfig(backbone=backbone)
        with (
            workload(f"gpu-{backbone}", model, optim, ScaleConfig(), rows, size, flips) as work,
            ray_for_fleets(cpus),
        ):
            for by_compiler in (False, True) if compiling else (False,):
                measure(Bench.of(work, device, by_compiler), repeats, steps, report)
        report.note("published by timm, on an RTX 3090", PUBLISHED.get(backbone, "none"))
        report.show()


@dataclass
class Bench:
    """A network in training on a device."""

    task: TrainTask
    train_state: TrainState
    by_compiler: bool

    @classmethod
    def of(cls, work: Workload, device: str, by_compiler: bool) -> Bench:
        """As a worker that is alone sets it up."""
        scale = derive(work.variant.scale, compile=by_compiler)
        task = work.task(device)
        return cls(task, task.train_state(lambda network: compile_model(network, scale)), by_compiler)

    def train(self, batches: Batches, steps: int) -> tuple[float, float]:
        """Images per second, and the share of the time spent getting batches, of ``steps`` warm steps."""
        optim, device = self.task.variant.optim, self.task.dist_context.device
        for _ in range(WARM_STEPS):
            step_once(self.train_state, *next(batches), optim)
        wait_for(device)
        start, waited_s = time.perf_counter(), 0.0
        for _ in range(steps):
            before = time.perf_counter()
            images, targets = next(batches)
            waited_s += time.perf_counter() - before
            step_once(self.train_state, images, targets, optim)
        wait_for(device)
        passed_s = time.perf_counter() - start
        return steps * optim.batch_size / passed_s, waited_s / passed_s

    def waits(self, batches: Batches) -> str:
        """How many operations of one step, and of getting its batch, wait for a GPU."""
        if self.task.dist_context.device.type != "cuda":
            return "not counted on a CPU"
        counts: list[int] = []
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for stage in ("batch", "step"):
                with warnings.catch_warnings(record=True) as told:
                    warnings.simplefilter("always")
                    if stage == "batch":
                        images, targets = next(batches)
                    else:
                        step_once(self.train_state, images, targets, self.task.variant.optim)
                counts.append(sum("synchroniz" in str(one.message) for one in told))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return f"{counts[0]} for the batch, {counts[1]} in the step"


def measure(bench: Bench, repeats: int, steps: int, report: Report) -> None:
    """Both sources of batches, turn by turn."""
    kind = "compiled" if bench.by_compiler else "eager"
    device = bench.task.dist_context.device
    stream = bench.task.batches(0)
    one = next(stream)
    start = time.perf_counter()
    step_once(bench.train_state, *one, bench.task.variant.optim)
    wait_for(device)
    report.note(f"{kind}: first step, seconds", round(time.perf_counter() - start, 2))
    decoded_once, streamed, shares = [], [], []
    for _ in range(repeats):
        decoded_once.append(bench.train(repeat(one), steps)[0])
        rate, share = bench.train(stream, steps)
        streamed.append(rate)
        shares.append(share)
    report.note(f"{kind}: images/s, resident", spread(decoded_once))
    report.note(f"{kind}: images/s, stream", spread(streamed))
    report.note(f"{kind}: share of time waiting for batches, at most", spread(shares))
    report.note(f"{kind}: waits for the device", bench.waits(stream))
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**30
        torch.cuda.reset_peak_memory_stats(device)
        report.note(f"{kind}: peak memory, GiB", round(peak, 2))
    ratios = [real / still for real, still in zip(streamed, decoded_once, strict=True)]
    report.ratio(f"{kind}: images/s, stream / resident", ratios, ">= 0.95")


def wait_for(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
