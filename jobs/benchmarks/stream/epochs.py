"""Our stream beside torch's DataLoaders: epochs, and the time to the first batch."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jobs.benchmarks.chip_data import (
    CACHE_DIR,
    CORES,
    FLIPS,
    OWN_RAY,
    Rows,
    Sizes,
    batch_sampler_of,
    decoded_once,
    delivered,
    epoch_files,
    private_ray,
)
from jobs.benchmarks.measurement import CpuMeter, Report, alternate, process_ids
from jobs.benchmarks.stream.loaders import CachedBatches, FileBatches, images_of, loader
from torch.utils.data import DataLoader

from canopy.config import AugmentConfig
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.loader import training_batches
from canopy.data.loading.ray_dataset import BatchStream
from canopy.data.loading.uri_list import UriList

LATER = 4
"""Epochs that are timed together after the first."""
CROP = {64: 56, 256: 224}
"""Height and width of the random square that is cut out of chips of a size."""
Rivals = dict[str, DataLoader[Any]]


def ours(chips: ChipSource, augment: AugmentConfig, epochs_: int, skip: int = 0) -> BatchStream:
    """Our stream of whole epochs, with as many data tasks as there are cores."""
    plan = batch_sampler_of(len(chips.uris))
    first, last = skip * plan.steps_per_epoch, (skip + epochs_) * plan.steps_per_epoch
    return training_batches(
        chips, plan, augment, rank=0, world=1, first_step=first, last_step=last, cores=CORES
    )


def epochs(
    repeats: int = 3,
    sizes: Sizes = (64, 256),
    rows: Rows = None,
    crop: bool = True,
    out: Path | None = None,
) -> None:
    """Our stream and torch's DataLoaders, on the first epoch and on later ones.

    Of each chip both sides cut out the same random square, 56 of 64 px and 224 of 256 px, with the same
    kernel, before it is flipped and turned; ``--no-crop`` leaves chips whole.

    First epoch, ours: every image read and decoded by ``decode_all`` into a file that all processes map, as
    prepare does on one machine, and one epoch streamed from there. What prepare does beside (thumbnails,
    hashes, the search for duplicates) has no counterpart in a DataLoader and is not counted. "Memory at
    hand": into a file whose pages are in memory, not into a new one; a virtual machine may get each new page
    from its host only when it is touched, which can cost more than decoding what goes into it. "As it
    streams" is the same epoch by the path for sets that do not fit: decoded within the data tasks, nothing
    kept. Theirs: the DataLoader over the files.

    Later epochs: a fresh execution of 4 epochs, from the call to its last batch.
    Theirs: the same DataLoader over the files, and the DataLoader over a memory-mapped uint8 cache, with two
    processes and with none (whoever consumes makes the batches; nothing is ever made ahead).
    """
    for size in sizes:
        augment = AugmentConfig(crop=CROP[size] if crop else None)
        title = f"epochs, {size} px, {f'crops of {augment.crop}' if crop else 'whole'}"
        files, report = epoch_files(size, rows), Report(title, out)
        rivals = _rivals(files, size, augment)
        for rival in rivals.values():  # forked before Ray has threads, and warm
            images_of(rival)
        theirs = process_ids()
        with private_ray(OWN_RAY):
            _measure(files, size, augment, repeats, report, rivals, theirs)
        report.compare("ours, first epoch", "DataLoader, files", ">= 1")
        report.compare("ours, first epoch, memory at hand", "DataLoader, files", ">= 1")
        report.compare("ours, as it streams", "DataLoader, files")
        report.compare("ours, later epochs", "DataLoader, files", ">= 2")
        report.compare("ours, later epochs", "DataLoader, cache", ">= 0.9")
        report.compare("ours, later epochs", "DataLoader, cache, no process", ">= 0.9")
        report.show()


def _rivals(files: tuple[str, ...], size: int, augment: AugmentConfig) -> Rivals:
    plan, cache = batch_sampler_of(len(files)), CACHE_DIR / f"cache-{size}px-{len(files)}.npy"
    from_files = FileBatches(files, plan, augment, size)
    if not cache.exists():
        chips_NHWC = np.lib.format.open_memmap(cache, "w+", np.uint8, (len(files), size, size, 3))
        from_files.read_into(np.arange(len(files)), chips_NHWC)
    cached = CachedBatches(cache, plan, augment, size)
    return {
        "DataLoader, files": loader(from_files, plan, 1, CORES),
        "DataLoader, cache": loader(cached, plan, LATER, CORES),
        "DataLoader, cache, no process": loader(cached, plan, LATER, 0),
    }


def _measure(
    files: tuple[str, ...],
    size: int,
    augment: AugmentConfig,
    repeats: int,
    report: Report,
    rivals: Rivals,
    theirs: set[int],
) -> None:
    chips, streaming = decoded_once(files, size), ChipSource(size, UriList(files), None)
    for source in (chips, streaming):
        delivered(ours(source, augment, 1))
    _agree(ours(chips, augment, 1), rivals["DataLoader, files"].dataset)
    meter, their_meter = CpuMeter(theirs), CpuMeter(process_ids() - theirs)
    told: dict[str, str] = {}

    def taken(name: str, source: ChipSource, epochs_: int = 1, skip: int = 0) -> int:
        stream = ours(source, augment, epochs_, skip)
        images = delivered(stream)
        told[name] = stream.stats()
        return images

    def first(name: str, fresh: bool) -> None:
        def whole() -> int:
            return taken("first epoch", decoded_once(files, size, fresh=fresh))

        report.add(name, meter.read(whole))

    def later() -> None:
        report.add("ours, later epochs", meter.read(lambda: taken("later epochs", chips, LATER, skip=1)))

    def as_it_streams() -> None:
        report.add("ours, as it streams", meter.read(lambda: taken("as it streams", streaming)))

    def of(name: str, rival: DataLoader[Any]) -> None:
        report.add(name, their_meter.read(lambda: images_of(rival)))

    turns: list[Callable[[], None]] = [
        partial(first, "ours, first epoch", fresh=True),
        partial(first, "ours, first epoch, memory at hand", fresh=False),
        later,
        as_it_streams,
    ]
    alternate(turns + [partial(of, *rival) for rival in rivals.items()], repeats)
    idle = meter.read(lambda: time.sleep(3) or 1)  # type: ignore[func-returns-value]
    report.note("Ray's daemons when idle, CPU-ms a second", 1e3 * idle.cpu_s / idle.wall_s)
    for name, account in told.items():
        report.note(f"Ray Data's account of the last {name}", account)


def _agree(stream: BatchStream, batches: Any) -> None:
    """Both sides bring the same first batch."""
    rows_n, images_nHWC = batches[0]
    mine = next(stream)
    assert np.array_equal(mine["row"], rows_n)
    assert np.array_equal(mine["image"], images_nHWC.numpy())


def first_batch(
    repeats: int = 5, sizes: Sizes = (64, 256), rows: Rows = None, out: Path | None = None
) -> None:
    """Seconds to the first batch: the very first on a fresh Ray, and with its processes up.

    The DataLoader forks its processes from one that has imported everything; Ray starts fresh ones.
    """
    for size in sizes:
        files, report = epoch_files(size, rows), Report(f"first batch, {size} px", out)
        plan = batch_sampler_of(len(files))
        rival = loader(FileBatches(files, plan, FLIPS, size), plan, 1, CORES)
        _time(report, "DataLoader, files", iter, rival, repeats)
        del rival
        with private_ray(OWN_RAY):
            _time(
                report, "ours, as it streams", _first_epoch, ChipSource(size, UriList(files), None), repeats
            )
            _time(report, "ours, resident", _first_epoch, decoded_once(files, size), repeats)
        report.show()


def _first_epoch(chips: ChipSource) -> BatchStream:
    return ours(chips, FLIPS, 1)


def _time(
    report: Report, name: str, begin: Callable[[Any], Iterator[Any]], source: Any, repeats: int
) -> None:
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        batches = begin(source)
        next(batches)
        seconds.append(time.perf_counter() - start)
        deque(batches, maxlen=0)  # an execution that is broken off takes its tasks' processes with it
    warm = f"{statistics.median(seconds[1:]):.2f} [{min(seconds[1:]):.2f}, {max(seconds[1:]):.2f}]"
    report.note(f"{name}, seconds: the first, then median [range]", f"{seconds[0]:.2f}, {warm}")
