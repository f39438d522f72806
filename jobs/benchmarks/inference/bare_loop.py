"""The rival: a loop in plain torch over the same members, at the best of its settings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from multiprocessing.connection import Connection

import numpy as np
import torch

from canopy.data.raster.decode import decode_image
from canopy.data.transforms.augment import normalize
from canopy.inference.load import load_model
from canopy.inference.networks import Precision
from canopy.runtime.malloc import keep_freed_memory


@dataclass(frozen=True)
class Setting:
    """How the loop runs.

    Args:
        processes: processes, each with its share of the images.
        threads: threads of each.
        batch: images in a forward pass.
        channels_last: memory order of networks and images.
    """

    processes: int
    threads: int
    batch: int
    channels_last: bool

    def __str__(self) -> str:
        order = "channels-last" if self.channels_last else "contiguous"
        return f"{self.processes} process(es) x {self.threads} thread(s), batch {self.batch}, {order}"


SETTINGS = tuple(
    Setting(processes, 2 // processes, batch, channels_last)
    for processes, batch, channels_last in product((1, 2), (8, 32, 128), (False, True))
)
"""All settings that are tried, on two cores."""


def loop_rate(
    run: str, paths: Sequence[str], size: int, setting: Setting, precision: Precision
) -> tuple[float, float]:
    """Images per second, and the sum of all probabilities: decode, all members, sigmoid.

    The clock runs from the moment that all processes have loaded their networks and seen one batch.
    """
    context = get_context("spawn")
    pipes, workers = [], []
    for number in range(setting.processes):
        ours, theirs = context.Pipe()
        share = tuple(paths[number :: setting.processes])
        worker = context.Process(target=_work, args=(theirs, run, share, size, setting, precision))
        worker.start()
        pipes.append(ours)
        workers.append(worker)
    for pipe in pipes:
        pipe.recv()
    start = time.perf_counter()
    for pipe in pipes:
        pipe.send("go")
    total = sum(pipe.recv() for pipe in pipes)
    wall_s = time.perf_counter() - start
    for worker in workers:
        worker.join()
    return len(paths) / wall_s, total


@torch.inference_mode()
def _work(
    pipe: Connection, run: str, paths: Sequence[str], size: int, setting: Setting, precision: Precision
) -> None:
    torch.set_num_threads(setting.threads)
    keep_freed_memory()
    model = load_model(run, device="cpu")
    order = torch.channels_last if setting.channels_last else torch.contiguous_format
    networks = [folds[0].network.to(memory_format=order) for folds in model.networks.members.values()]  # type: ignore[call-overload]

    def predict(part: Sequence[str]) -> float:
        chips_NHWC = np.empty((len(part), size, size, 3), np.uint8)
        for chip, path in zip(chips_NHWC, part, strict=True):
            with open(path, "rb") as stream:  # noqa: PTH123 (faster)
                chip[:] = decode_image(stream.read(), size)
        images_NCHW = normalize(torch.from_numpy(chips_NHWC)).contiguous(memory_format=order)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            found = [network(images_NCHW).float().sigmoid() for network in networks]
        return float(torch.stack(found).mean(0).sum())

    predict(paths[: setting.batch])
    pipe.send("ready")
    pipe.recv()
    pipe.send(sum(predict(paths[n : n + setting.batch]) for n in range(0, len(paths), setting.batch)))
