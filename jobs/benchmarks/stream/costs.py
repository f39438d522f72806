"""What decoding costs beside the cores' limit, what three variants cost beside one, and in what memory."""

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
    OWN_RAY,
    Rows,
    Sizes,
    chip_files,
    decoded_once,
    delivered,
    epoch_files,
    private_ray,
)
from jobs.benchmarks.measurement import CpuMeter, MemoryWatch, Reading, Report, alternate, process_ids
from jobs.benchmarks.stream.loaders import decode_files, decode_only, decoding_pool

from canopy.config import AugmentConfig
from canopy.data.loading.batch_sampler import BatchSampler
from canopy.data.loading.chip_cache import ChipCache
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.decode_all import decode_all
from canopy.data.loading.loader import training_batches
from canopy.data.loading.uri_list import UriList
from canopy.runtime.malloc import keep_freed_memory

CHUNK = 250
"""Images that a decoding process is given at a time."""


def decode(repeats: int = 3, sizes: Sizes = (64, 256), rows: Rows = None, out: Path | None = None) -> None:
    """``decode_all`` beside two processes that do nothing but decode the same JPEGs.

    "Bare loop" decodes from memory into one buffer and drops the pixels: what the cores can do at all;
    "files" reads each image first. Ours reads the files, inspects and decodes them, and drops the pixels, as
    where they would not fit; the start of Ray Data's execution is counted. "Kept" leaves all pixels in a file
    that every process maps, as prepare does on one machine, beside a loop that reads the files, decodes, and
    leaves the pixels in a file: where fresh pages are dear, they cost more than decoding. The last ratio
    holds all that against the loop that keeps nothing.
    256 px are decoded at full size, and again to 224 px, with PIL's resampling on all sides.
    """
    for size in sizes:
        for goal in (64,) if size == 64 else (256, 224):
            _decode(epoch_files(size, rows), size, goal, repeats, Report(f"decode, {size} px to {goal}", out))


def _decode(files: tuple[str, ...], size: int, goal: int, repeats: int, report: Report) -> None:
    starts, kept = range(0, len(files), CHUNK), ChipCache(str(CACHE_DIR / f"bare-{goal}px.npy"))
    dropped = files * (2 if size > 64 else 4)  # some seconds' work, where none of them is kept
    with decoding_pool(files[:2000], CORES) as pool:

        def limit() -> int:
            jobs = ((n, n + CHUNK, goal) for n in range(0, len(dropped), CHUNK))
            return sum(pool.imap_unordered(decode_only, jobs))

        def read_too() -> int:
            jobs = ((0, dropped[n : n + CHUNK], goal, None) for n in range(0, len(dropped), CHUNK))
            return sum(pool.imap_unordered(decode_files, jobs))

        def keep() -> int:
            kept.discard()
            kept.create(len(files), goal)
            jobs = ((n, files[n : n + CHUNK], goal, kept) for n in starts)
            return sum(pool.imap_unordered(decode_files, jobs))

        def all_of_them() -> int:
            return sum(len(found) for _, found in decode_all(dropped, goal, with_images=False))

        def all_kept() -> int:
            return len(decoded_once(files, goal).uris)

        limit()
        theirs = process_ids()
        with private_ray(OWN_RAY):
            all_of_them()
            meter, their_meter = CpuMeter(theirs), CpuMeter(process_ids() - theirs)

            def take(name: str, meter: CpuMeter, work: Callable[[], int]) -> None:
                report.add(name, meter.read(work))

            turns = [
                partial(take, "decode_all", meter, all_of_them),
                partial(take, "decode_all, kept", meter, all_kept),
                partial(take, "bare loop", their_meter, limit),
                partial(take, "bare loop, files", their_meter, read_too),
                partial(take, "bare loop, kept", their_meter, keep),
            ]
            alternate(turns, repeats)
    kept.discard()
    report.compare("decode_all", "bare loop", ">= 0.85")
    report.compare("decode_all", "bare loop, files")
    report.compare("decode_all, kept", "bare loop, kept", ">= 0.85")
    report.compare("decode_all, kept", "bare loop")
    report.show()


@ray.remote(num_cpus=0)
class Variant:
    """A variant that consumes its epochs in a process of its own, as a training worker does."""

    def __init__(self, seed: int) -> None:
        keep_freed_memory()
        self._seed = seed

    def epoch(self, chips: ChipSource, augment: AugmentConfig) -> int:
        """Images that an epoch delivered."""
        plan = BatchSampler(np.arange(len(chips.uris)), BATCH, self._seed)
        last = plan.steps_per_epoch
        return delivered(
            training_batches(chips, plan, augment, rank=0, world=1, first_step=0, last_step=last)
        )


def at_once(variants: list[Any], chips: ChipSource, augment: AugmentConfig) -> int:
    """Images delivered to ``variants`` that consume an epoch at the same time."""
    return sum(ray.get([variant.epoch.remote(chips, augment) for variant in variants]))


def share(repeats: int = 3, sizes: Sizes = (64, 256), rows: Rows = None, out: Path | None = None) -> None:
    """Three variants at once beside one, all reading the same decoded chips, each in a process of its own.

    Two readings of the goal of 1.3, both given:

    - total: (decode once + an epoch of each of three variants, at once) over (decode once + an epoch of
      one). Three that decode for themselves would be 3. What a variant does not share (its own batches, in
      its own order, augmented its own way) is bound to come three times, so this ratio depends on how dear
      decoding is beside it: "augmented on the device" leaves only the gathering to the stream.
    - per image: what an image delivered to one of three costs beside one delivered to the only one, decoding
      left out: whether streams get in each other's way.
    """
    for size in sizes:
        files, report = epoch_files(size, rows), Report(f"share, {size} px", out)
        with private_ray(OWN_RAY):
            _share(files, size, repeats, report)
        report.show()


def _share(files: tuple[str, ...], size: int, repeats: int, report: Report) -> None:
    chips, meter = decoded_once(files, size), CpuMeter()
    variants: list[Any] = [Variant.remote(seed) for seed in range(3)]  # type: ignore[attr-defined]
    at_once(variants, chips, FLIPS)
    readings: dict[str, list[Reading]] = {}

    def take(name: str, work: Callable[[], int]) -> None:
        readings.setdefault(name, []).append(report.add(name, meter.read(work)))

    turns = [partial(take, "decode once", lambda: len(decoded_once(files, size).uris))]
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
        report.ratio(f"total CPU, augmented on the {place}: 3 variants / 1", cpu, "<= 1.3")
        report.ratio(f"total wall, augmented on the {place}: 3 variants / 1", wall, "<= 1.3")
        report.ratio(f"CPU per image, augmented on the {place}: among 3 / alone", each, "<= 1.3")


def memory(repeats: int = 1, sizes: Sizes = (64,), store_mb: int = 150, out: Path | None = None) -> None:
    """Three times the object store, decoded by ``decode_all`` and then streamed as training batches.

    Peaks are of memory private to a process, sampled five times a second; every repeat has a Ray of its own.
    """
    for size in sizes:
        files = chip_files(size, 3 * (store_mb << 20) // (size * size * 3))
        report = Report(f"memory, {size} px, {store_mb} MB of store", out)
        report.note("decoded chips, MB", round(len(files) * size * size * 3 / 2**20))
        filled: dict[str, list[float]] = {}
        for _ in range(repeats):
            _memory(files, size, store_mb << 20, report, filled)
        for name, shares in filled.items():
            report.ratio(f"{name}: peak of the object store / its size", shares, "<= 1")
        report.show()


def _memory(
    files: tuple[str, ...], size: int, store: int, report: Report, filled: dict[str, list[float]]
) -> None:
    def decoded() -> int:
        return sum(len(found) for _, found in decode_all(files, size))

    def streamed() -> int:
        plan, chips = (
            BatchSampler(np.arange(len(files)), BATCH, seed=0),
            ChipSource(size, UriList(files), None),
        )
        last = plan.steps_per_epoch
        return delivered(training_batches(chips, plan, FLIPS, rank=0, world=1, first_step=0, last_step=last))

    with private_ray(store):
        for name, work in (("decode_all", decoded), ("training batches", streamed)):
            with MemoryWatch() as peak:
                assert report.add(name, CpuMeter().read(work)).images > len(files) - BATCH
            figures = peak.driver_bytes, peak.largest_bytes, peak.store_bytes, peak.spilled_bytes
            driver, largest, used, spilled = (f"{number / 2**20:,.0f}" for number in figures)
            told = f"consumer {driver}, largest process {largest}, store {used}, spilled {spilled}"
            report.note(f"{name}, peak MB", told)
            filled.setdefault(name, []).append(peak.store_bytes / store)
