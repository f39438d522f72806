"""Cost of decoding against a bare loop, of three variants against one, and the memory of streaming."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
from jobs.benchmarks.chip_data import (
    BATCH,
    CACHE_DIR,
    CORES,
    FLIPS,
    STORE_BYTES,
    Rows,
    Sizes,
    chip_files,
    count_images,
    decode_to_cache,
    epoch_files,
    private_ray,
)
from jobs.benchmarks.measurement import CpuMeter, MemoryMonitor, Reading, Report, alternate, child_process_ids
from jobs.benchmarks.stream.loaders import decode_files, decode_from_memory, decoding_pool

from canopy.config import AugmentConfig
from canopy.data.loading.batch_sampler import BatchSampler
from canopy.data.loading.batch_streams import training_batches
from canopy.data.loading.chip_cache import ChipCache
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.decode_blocks import decode_blocks
from canopy.data.loading.uri_list import UriList
from canopy.runtime.malloc import keep_freed_memory

CHUNK = 250
"""Images in one job of a decoding process."""


def decode(repeats: int = 3, sizes: Sizes = (64, 256), rows: Rows = None, out: Path | None = None) -> None:
    """``decode_blocks`` and two processes that only decode the same JPEGs.

    "Bare loop" decodes from memory into one buffer and discards the pixels, which is the limit of the cores;
    "files" reads each image first. ``decode_blocks`` reads, inspects and decodes the files and discards the
    pixels, as for data sets larger than the memory; its time includes the start of Ray Data's execution.
    "Kept" writes all pixels to a file that every process maps, as prepare does on one machine. It is compared
    with a loop that reads, decodes and writes to a file, because new memory pages may cost more than
    decoding, and with the bare loop. Chips of 256 px are decoded at full size, and again to 224 px with
    Pillow's resampling on all sides.
    """
    for size in sizes:
        for goal in (64,) if size == 64 else (256, 224):
            _decode(epoch_files(size, rows), size, goal, repeats, Report(f"decode, {size} px to {goal}", out))


def _decode(files: tuple[str, ...], size: int, goal: int, repeats: int, report: Report) -> None:
    starts, kept = range(0, len(files), CHUNK), ChipCache(str(CACHE_DIR / f"bare-{goal}px.npy"))
    dropped = files * (2 if size > 64 else 4)  # some seconds of work, as no pixels are kept
    with decoding_pool(files[:2000], CORES) as pool:

        def bare_loop() -> int:
            jobs = ((n, n + CHUNK, goal) for n in range(0, len(dropped), CHUNK))
            return sum(pool.imap_unordered(decode_from_memory, jobs))

        def read_and_decode() -> int:
            jobs = ((0, dropped[n : n + CHUNK], goal, None) for n in range(0, len(dropped), CHUNK))
            return sum(pool.imap_unordered(decode_files, jobs))

        def decode_and_keep() -> int:
            kept.discard()
            kept.create(len(files), goal)
            jobs = ((n, files[n : n + CHUNK], goal, kept) for n in starts)
            return sum(pool.imap_unordered(decode_files, jobs))

        def decode_all_files() -> int:
            return sum(len(found) for _, found in decode_blocks(dropped, goal, with_images=False))

        def decode_all_to_cache() -> int:
            return len(decode_to_cache(files, goal).uris)

        bare_loop()
        theirs = child_process_ids()
        with private_ray(STORE_BYTES):
            decode_all_files()
            meter, their_meter = CpuMeter(theirs), CpuMeter(child_process_ids() - theirs)

            def take(name: str, meter: CpuMeter, work: Callable[[], int]) -> None:
                report.add_reading(name, meter.measure(work))

            turns = [
                partial(take, "decode_blocks", meter, decode_all_files),
                partial(take, "decode_blocks, kept", meter, decode_all_to_cache),
                partial(take, "bare loop", their_meter, bare_loop),
                partial(take, "bare loop, files", their_meter, read_and_decode),
                partial(take, "bare loop, kept", their_meter, decode_and_keep),
            ]
            alternate(turns, repeats)
    kept.discard()
    report.compare("decode_blocks", "bare loop", ">= 0.85")
    report.compare("decode_blocks", "bare loop, files")
    report.compare("decode_blocks, kept", "bare loop, kept", ">= 0.85")
    report.compare("decode_blocks, kept", "bare loop")
    report.show()


@ray.remote(num_cpus=0)
class Variant:
    """Actor that consumes the epochs of one variant in its own process, as a training worker does."""

    def __init__(self, seed: int) -> None:
        keep_freed_memory()
        self._seed = seed

    def epoch(self, chips: ChipSource, augment: AugmentConfig) -> int:
        """Consume one epoch and return the number of images."""
        sampler = BatchSampler(np.arange(len(chips.uris)), BATCH, self._seed)
        last = sampler.steps_per_epoch
        return count_images(
            training_batches(chips, sampler, augment, rank=0, world_size=1, first_step=0, stop_step=last)
        )


def at_once(variants: list[Any], chips: ChipSource, augment: AugmentConfig) -> int:
    """Let all ``variants`` consume an epoch at the same time; return the number of images."""
    return sum(ray.get([variant.epoch.remote(chips, augment) for variant in variants]))


def share(repeats: int = 3, sizes: Sizes = (64, 256), rows: Rows = None, out: Path | None = None) -> None:
    """Three variants at once and one alone, all on the same decoded chips, each in its own process.

    The report has two ratios for the goal of 1.3:

    - total: (decode once + an epoch of three variants at once) / (decode once + an epoch of one). It would
      be 3 if each variant decoded for itself. Each variant has its own order and augmentation, so this work
      is done three times, and the ratio depends on its share of the cost. With "augmented on the device",
      the stream only gathers chips.
    - per image: CPU time per image of three variants / that of one, without decoding. It shows whether
      concurrent streams slow each other down.
    """
    for size in sizes:
        files, report = epoch_files(size, rows), Report(f"share, {size} px", out)
        with private_ray(STORE_BYTES):
            _share(files, size, repeats, report)
        report.show()


def _share(files: tuple[str, ...], size: int, repeats: int, report: Report) -> None:
    chips, meter = decode_to_cache(files, size), CpuMeter()
    variants: list[Any] = [Variant.remote(seed) for seed in range(3)]  # type: ignore[attr-defined]
    at_once(variants, chips, FLIPS)
    readings: dict[str, list[Reading]] = {}

    def take(name: str, work: Callable[[], int]) -> None:
        readings.setdefault(name, []).append(report.add_reading(name, meter.measure(work)))

    turns = [partial(take, "decode once", lambda: len(decode_to_cache(files, size).uris))]
    places = {"data": FLIPS, "device": AugmentConfig(place="device")}
    for place, augment in places.items():
        for count in (1, 3):
            work = partial(at_once, variants[:count], chips, augment)
            turns.append(partial(take, f"{count} at once, augmented on the {place}", work))
    alternate(turns, repeats)
    for place in places:
        names = ("decode once", *(f"{count} at once, augmented on the {place}" for count in (1, 3)))
        rows = list(zip(*(readings[name] for name in names), strict=True))
        cpu = [(once.cpu_s + three.cpu_s) / (once.cpu_s + one.cpu_s) for once, one, three in rows]
        wall = [(once.wall_s + three.wall_s) / (once.wall_s + one.wall_s) for once, one, three in rows]
        each = [three.cpu_ms / one.cpu_ms for _, one, three in rows]
        report.add_ratio(f"total CPU, augmented on the {place}: 3 variants / 1", cpu, "<= 1.3")
        report.add_ratio(f"total wall, augmented on the {place}: 3 variants / 1", wall, "<= 1.3")
        report.add_ratio(f"CPU per image, augmented on the {place}: among 3 / alone", each, "<= 1.3")


def memory(repeats: int = 1, sizes: Sizes = (64,), store_mb: int = 150, out: Path | None = None) -> None:
    """Decode a data set three times as large as the object store, then stream it as training batches.

    Peaks are of the private memory of a process, sampled five times a second. Each repeat has a new Ray.
    """
    for size in sizes:
        files = chip_files(size, 3 * (store_mb << 20) // (size * size * 3))
        report = Report(f"memory, {size} px, {store_mb} MB of store", out)
        report.add_value("decoded chips, MB", round(len(files) * size * size * 3 / 2**20))
        filled: dict[str, list[float]] = {}
        for _ in range(repeats):
            _memory(files, size, store_mb << 20, report, filled)
        for name, shares in filled.items():
            report.add_ratio(f"{name}: peak of the object store / its size", shares, "<= 1")
        report.show()


def _memory(
    files: tuple[str, ...], size: int, store: int, report: Report, filled: dict[str, list[float]]
) -> None:
    def decoded() -> int:
        return sum(len(found) for _, found in decode_blocks(files, size))

    def streamed() -> int:
        sampler, chips = (
            BatchSampler(np.arange(len(files)), BATCH, seed=0),
            ChipSource(size, UriList(files), None),
        )
        last = sampler.steps_per_epoch
        return count_images(
            training_batches(chips, sampler, FLIPS, rank=0, world_size=1, first_step=0, stop_step=last)
        )

    with private_ray(store):
        for name, work in (("decode_blocks", decoded), ("training batches", streamed)):
            with MemoryMonitor() as peak:
                assert report.add_reading(name, CpuMeter().measure(work)).images > len(files) - BATCH
            figures = peak.driver_bytes, peak.largest_bytes, peak.store_bytes, peak.spilled_bytes
            driver, largest, used, spilled = (f"{number / 2**20:,.0f}" for number in figures)
            peaks = f"consumer {driver}, largest process {largest}, store {used}, spilled {spilled}"
            report.add_value(f"{name}, peak MB", peaks)
            filled.setdefault(name, []).append(peak.store_bytes / store)
