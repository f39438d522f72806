"""Canopy's stream and torch's DataLoaders: speed of epochs, and the time to the first batch."""

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
    STORE_BYTES,
    Rows,
    Sizes,
    count_images,
    decode_to_cache,
    epoch_files,
    make_batch_sampler,
    private_ray,
)
from jobs.benchmarks.measurement import CpuMeter, Report, alternate, child_process_ids
from jobs.benchmarks.stream.loaders import CachedBatches, FileBatches, count_images_of_pass, loader
from torch.utils.data import DataLoader

from canopy.config import AugmentConfig
from canopy.data.loading.batch_streams import training_batches
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.ray_stream import BatchStream
from canopy.data.loading.uri_list import UriList

LATER_EPOCHS = 4
"""Number of epochs after the first that are timed together."""
CROP = {64: 56, 256: 224}
"""Height and width of the random crop for each size of chips, in pixels."""
Baselines = dict[str, DataLoader[Any]]


def ours(chips: ChipSource, augment: AugmentConfig, epochs_: int, skip: int = 0) -> BatchStream:
    """Canopy's stream of ``epochs_`` epochs after the first ``skip``, with a data task per core."""
    sampler = make_batch_sampler(len(chips.uris))
    first, last = skip * sampler.steps_per_epoch, (skip + epochs_) * sampler.steps_per_epoch
    return training_batches(
        chips, sampler, augment, rank=0, world_size=1, first_step=first, stop_step=last, cores=CORES
    )


def epochs(
    repeats: int = 3,
    sizes: Sizes = (64, 256),
    rows: Rows = None,
    crop: bool = True,
    out: Path | None = None,
) -> None:
    """Canopy's stream and torch's DataLoaders, in the first epoch and in later epochs.

    Both sides cut the same random crop out of each chip with the same kernel (56 of 64 px, 224 of 256 px),
    then flip and turn it. ``--no-crop`` uses whole chips.

    First epoch, ours: ``decode_blocks`` reads and decodes every image into a file that all processes map, as
    prepare does on one machine; then one epoch is streamed from the file. The other work of prepare
    (thumbnails, hashes, the search for duplicates) has no counterpart in a DataLoader and is not measured.
    "Memory at hand" writes to a file whose pages are in memory. A virtual machine may receive each new page
    from its host only at the first access, which can cost more than decoding. "As it streams" is the same
    epoch on the path for data sets larger than the memory: the data tasks decode, and nothing is kept. The
    other side is a DataLoader over the files.

    Later epochs: a new execution of 4 epochs, from the call to its last batch. The other side is the same
    DataLoader over the files, and a DataLoader over a memory-mapped uint8 cache, with two processes and with
    none. With none, the consumer itself makes each batch when it needs it.
    """
    for size in sizes:
        augment = AugmentConfig(crop=CROP[size] if crop else None)
        title = f"epochs, {size} px, {f'crops of {augment.crop}' if crop else 'whole'}"
        files, report = epoch_files(size, rows), Report(title, out)
        baselines = _baselines(files, size, augment)
        for baseline in baselines.values():  # fork before Ray starts threads, and warm up
            count_images_of_pass(baseline)
        theirs = child_process_ids()
        with private_ray(STORE_BYTES):
            _measure(files, size, augment, repeats, report, baselines, theirs)
        report.compare("ours, first epoch", "DataLoader, files", ">= 1")
        report.compare("ours, first epoch, memory at hand", "DataLoader, files", ">= 1")
        report.compare("ours, as it streams", "DataLoader, files")
        report.compare("ours, later epochs", "DataLoader, files", ">= 2")
        report.compare("ours, later epochs", "DataLoader, cache", ">= 0.9")
        report.compare("ours, later epochs", "DataLoader, cache, no process", ">= 0.9")
        report.show()


def _baselines(files: tuple[str, ...], size: int, augment: AugmentConfig) -> Baselines:
    sampler, cache = make_batch_sampler(len(files)), CACHE_DIR / f"cache-{size}px-{len(files)}.npy"
    from_files = FileBatches(files, sampler, augment, size)
    if not cache.exists():
        chips_NHWC = np.lib.format.open_memmap(cache, "w+", np.uint8, (len(files), size, size, 3))
        from_files.read_into(np.arange(len(files)), chips_NHWC)
    cached = CachedBatches(cache, sampler, augment, size)
    return {
        "DataLoader, files": loader(from_files, sampler, 1, CORES),
        "DataLoader, cache": loader(cached, sampler, LATER_EPOCHS, CORES),
        "DataLoader, cache, no process": loader(cached, sampler, LATER_EPOCHS, 0),
    }


def _measure(
    files: tuple[str, ...],
    size: int,
    augment: AugmentConfig,
    repeats: int,
    report: Report,
    baselines: Baselines,
    theirs: set[int],
) -> None:
    chips, streaming = decode_to_cache(files, size), ChipSource(size, UriList(files), None)
    for source in (chips, streaming):
        count_images(ours(source, augment, 1))
    _check_same_batch(ours(chips, augment, 1), baselines["DataLoader, files"].dataset)
    meter, their_meter = CpuMeter(theirs), CpuMeter(child_process_ids() - theirs)
    statistics_by_name: dict[str, str] = {}

    def consume(name: str, source: ChipSource, epochs_: int = 1, skip: int = 0) -> int:
        stream = ours(source, augment, epochs_, skip)
        images = count_images(stream)
        statistics_by_name[name] = stream.stats()
        return images

    def first(name: str, fresh: bool) -> None:
        def decode_and_stream() -> int:
            return consume("first epoch", decode_to_cache(files, size, fresh=fresh))

        report.add_reading(name, meter.measure(decode_and_stream))

    def later() -> None:
        report.add_reading(
            "ours, later epochs", meter.measure(lambda: consume("later epochs", chips, LATER_EPOCHS, skip=1))
        )

    def as_it_streams() -> None:
        report.add_reading("ours, as it streams", meter.measure(lambda: consume("as it streams", streaming)))

    def take_baseline(name: str, baseline: DataLoader[Any]) -> None:
        report.add_reading(name, their_meter.measure(lambda: count_images_of_pass(baseline)))

    turns: list[Callable[[], None]] = [
        partial(first, "ours, first epoch", fresh=True),
        partial(first, "ours, first epoch, memory at hand", fresh=False),
        later,
        as_it_streams,
    ]
    alternate(turns + [partial(take_baseline, *baseline) for baseline in baselines.items()], repeats)
    idle = meter.measure(lambda: time.sleep(3) or 1)  # type: ignore[func-returns-value]
    report.add_value("Ray's daemons when idle, CPU-ms per second", 1e3 * idle.cpu_s / idle.wall_s)
    for name, account in statistics_by_name.items():
        report.add_value(f"Ray Data's statistics of the last {name}", account)


def _check_same_batch(stream: BatchStream, batches: Any) -> None:
    """Assert that both sides deliver the same first batch."""
    rows_n, images_nHWC = batches[0]
    batch = next(stream)
    assert np.array_equal(batch["row"], rows_n)
    assert np.array_equal(batch["image"], images_nHWC.numpy())


def first_batch(
    repeats: int = 5, sizes: Sizes = (64, 256), rows: Rows = None, out: Path | None = None
) -> None:
    """Seconds to the first batch: the first time on a new Ray, and later with its processes running.

    The DataLoader forks its processes from one that has imported everything; Ray starts new processes.
    """
    for size in sizes:
        files, report = epoch_files(size, rows), Report(f"first batch, {size} px", out)
        sampler = make_batch_sampler(len(files))
        baseline = loader(FileBatches(files, sampler, FLIPS, size), sampler, 1, CORES)
        _time(report, "DataLoader, files", iter, baseline, repeats)
        del baseline
        with private_ray(STORE_BYTES):
            _time(
                report, "ours, as it streams", _first_epoch, ChipSource(size, UriList(files), None), repeats
            )
            _time(report, "ours, resident", _first_epoch, decode_to_cache(files, size), repeats)
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
        deque(batches, maxlen=0)  # an execution that is stopped early ends the processes of its tasks
    warm = f"{statistics.median(seconds[1:]):.2f} [{min(seconds[1:]):.2f}, {max(seconds[1:]):.2f}]"
    report.add_value(f"{name}, seconds: the first, then median [range]", f"{seconds[0]:.2f}, {warm}")
