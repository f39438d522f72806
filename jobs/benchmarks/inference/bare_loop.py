"""The rival: a loop in plain torch over the same members, at the best of its settings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from jobs.benchmarks.chip_data import CORES

from canopy.data.raster.decode import decode_image
from canopy.data.transforms.normalize import normalize
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
    Setting(processes, CORES // processes, batch, channels_last)
    for processes, batch, channels_last in product((1, 2), (8, 32, 128), (False, True))
)
"""All settings that are tried, on two cores."""


@dataclass(frozen=True)
class Request:
    """What the processes of a loop do next.

    Args:
        paths: the images of one process.
        batch: images in a forward pass.
        channels_last: memory order.
        precision: of the networks.
    """

    paths: tuple[str, ...]
    batch: int
    channels_last: bool
    precision: Precision


class BareLoops:
    """The processes of all settings, started once; use it in a ``with`` statement.

    Args:
        run: directory of the run.
        size: height and width of a chip, pixels.
    """

    def __init__(self, run: str, size: int) -> None:
        context = get_context("spawn")
        self._pipes: dict[int, list[Connection]] = {}
        self._workers = []
        for processes in sorted({setting.processes for setting in SETTINGS}):
            for _ in range(processes):
                ours, theirs = context.Pipe()
                worker = context.Process(target=_work, args=(theirs, run, size, CORES // processes))
                worker.start()
                self._pipes.setdefault(processes, []).append(ours)
                self._workers.append(worker)

    def __enter__(self) -> BareLoops:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (pipe for pipes in self._pipes.values() for pipe in pipes):
            pipe.send(None)
        for worker in self._workers:
            worker.join()

    def rate(self, paths: Sequence[str], setting: Setting, precision: Precision) -> tuple[float, float]:
        """Images per second, and the sum of all probabilities: decode, all members, sigmoid, mean.

        Each process sees one batch before the clock starts.
        """
        pipes = self._pipes[setting.processes]
        for number, pipe in enumerate(pipes):
            share = tuple(paths[number :: len(pipes)])
            pipe.send(Request(share, setting.batch, setting.channels_last, precision))
        for pipe in pipes:
            pipe.recv()
        start = time.perf_counter()
        for pipe in pipes:
            pipe.send("go")
        total = sum(pipe.recv() for pipe in pipes)
        return len(paths) / (time.perf_counter() - start), total


@torch.inference_mode()
def _work(pipe: Connection, run: str, size: int, threads: int) -> None:
    torch.set_num_threads(threads)
    keep_freed_memory()
    model = load_model(run, device="cpu")
    networks: list[Any] = [folds[0].network for folds in model.networks.members.values()]
    while (request := pipe.recv()) is not None:
        order = torch.channels_last if request.channels_last else torch.contiguous_format
        for network in networks:
            network.to(memory_format=order)
        _sum(networks, request.paths[: request.batch], size, request, order)
        pipe.send("ready")
        pipe.recv()
        starts = range(0, len(request.paths), request.batch)
        parts = [request.paths[start : start + request.batch] for start in starts]
        pipe.send(sum(_sum(networks, part, size, request, order) for part in parts))


def _sum(
    networks: Sequence[Any], paths: Sequence[str], size: int, request: Request, order: torch.memory_format
) -> float:
    """Sum of the mean probabilities of one batch."""
    chips_NHWC = np.empty((len(paths), size, size, 3), np.uint8)
    for chip, path in zip(chips_NHWC, paths, strict=True):
        with open(path, "rb") as stream:  # noqa: PTH123 (faster)
            chip[:] = decode_image(stream.read(), size)
    images_NCHW = normalize(torch.from_numpy(chips_NHWC)).contiguous(memory_format=order)
    with torch.autocast("cpu", torch.bfloat16, enabled=request.precision == "bfloat16"):
        found = [network(images_NCHW).float().sigmoid() for network in networks]
    return float(torch.stack(found).mean(0).sum())
