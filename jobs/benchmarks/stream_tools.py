"""What the data benchmarks share: the chips, a Ray of their own, a meter of time and CPU, their table."""

from __future__ import annotations

import json
import logging
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import ray
import torch
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from canopy.config import AugmentConfig, GenerateConfig
from canopy.data.loading.batch_sampler import BatchSampler
from canopy.data.loading.chip_cache import decode_all, room_for
from canopy.data.loading.loader import Chips
from canopy.data.loading.uri_list import UriList
from canopy.data.synthetic.generate import generate
from canopy.runtime.cluster import quiet
from canopy.train.task import to_device

CORES = 2
"""What every contender may use: data tasks, loader processes, decoding processes."""
DISTINCT = {64: 4000, 256: 2000}
"""Chips rendered for each size; longer lists name them again, which costs a decoder the same."""
ROWS = {64: 100_000, 256: 16_000}
"""Images of an epoch: enough that what a start costs does not hide the rest, and that two decoded copies stay
in memory."""
BATCH = 64
FLIPS = AugmentConfig()
CPU = torch.device("cpu")
OWN_RAY = 4 << 30
PLACE = Path(tempfile.gettempdir()) / "canopy-benchmarks"


Sizes = Annotated[tuple[int, ...], tyro.conf.arg(help="chips' height and width: 64, 256 or both")]
Rows = Annotated[
    int | None, tyro.conf.arg(help="images of an epoch; None: 100,000 of 64 px, 16,000 of 256 px")
]


def plan_of(rows: int) -> BatchSampler:
    """The batches of a benchmark."""
    return BatchSampler(np.arange(rows), BATCH, seed=0)


def resident(files: tuple[str, ...], size: int, *, fresh: bool = True) -> Chips:
    """All chips decoded once into a file that every process maps, as prepare and the training stage do it.

    Args:
        files: of the images.
        size: of the chips.
        fresh: into a new file, as they do; else into that of the last call, whose pages are in memory.
    """
    place = PLACE / f"ours-{size}px.npy"
    if fresh:
        place.unlink(missing_ok=True)
        room_for(place, len(files), size)
    deque(decode_all(files, size, place=place, images=False), maxlen=0)
    return Chips(size, UriList(files), str(place))


def epoch_files(size: int, rows: int | None) -> tuple[str, ...]:
    """The images of an epoch: ``rows``, or as many as are usual for their size."""
    return chip_files(size, ROWS[size] if rows is None else rows)


def chip_files(size: int, rows: int) -> tuple[str, ...]:
    """``rows`` paths of generated RGB JPEGs of ``size`` pixels; rendered on the first call, then kept."""
    config = GenerateConfig(rows=min(DISTINCT[size], rows), size=size, cmyk_fraction=0)
    root = PLACE / f"{size}px-{config.rows}"
    root.parent.mkdir(exist_ok=True)
    with get_context("forkserver").Pool(CORES) as pool:
        generate(config, root, pool.imap, block_rows=64)
    found = sorted(str(path) for path in (root / "train-jpg").glob("*.jpg"))
    assert len(found) == config.rows
    return tuple(found[n % len(found)] for n in range(rows))


@contextmanager
def own_ray(
    object_store_bytes: int, cpus: int = CORES, resources: dict[str, float] | None = None
) -> Iterator[None]:
    """A Ray of the benchmark's own on this machine, without a dashboard.

    Args:
        object_store_bytes: size of the object store.
        cpus: logical ones.
        resources: custom ones.
    """
    with tempfile.TemporaryDirectory(prefix="cray", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=cpus,
            resources=resources or None,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=object_store_bytes,
            _temp_dir=folder,
        )
        quiet()
        try:
            yield
        finally:
            ray.shutdown()


@dataclass(frozen=True)
class Reading:
    """What it cost to deliver ``images``."""

    images: int
    wall_s: float
    cpu_s: float

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.wall_s

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds per image, over all processes."""
        return 1e3 * self.cpu_s / self.images

    def __add__(self, other: Reading) -> Reading:
        """One after the other, for the same images: those of the later."""
        return Reading(other.images, self.wall_s + other.wall_s, self.cpu_s + other.cpu_s)


class Meter:
    """CPU seconds of this process and all under it, user and system, those of ended children included.

    Args:
        leave_out: processes under this one that belong to a rival.
    """

    def __init__(self, leave_out: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        self._leave_out = leave_out

    def seconds(self) -> dict[int, float]:
        """By process id, so that one that ends takes nothing away."""
        return {p.pid: sum(p.cpu_times()[:4]) for p in living(self._leave_out)}

    def read(self, work: Callable[[], int]) -> Reading:
        """Do ``work``, which returns how many images it delivered."""
        before, start = self.seconds(), time.perf_counter()
        images = work()
        wall_s, after = time.perf_counter() - start, self.seconds()
        return Reading(images, wall_s, sum(t - before.get(pid, 0.0) for pid, t in after.items()))


def process_ids() -> set[int]:
    """Of all processes under this one."""
    return {process.pid for process in living()[1:]}


def alternate(contenders: Sequence[Callable[[], None]], repeats: int) -> None:
    """Each once a repeat, in turned-round order every other time."""
    for n in range(repeats):
        for contender in contenders if n % 2 == 0 else contenders[::-1]:
            contender()


def living(leave_out: set[int] = frozenset()) -> list[Any]:  # type: ignore[assignment]
    """This process and all under it, as psutil knows them."""
    import psutil  # type: ignore[import-untyped]  # Ray brings it along

    me = psutil.Process()
    alive = []
    for process in [me, *me.children(recursive=True)]:
        try:
            process.cpu_times()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if process.pid not in leave_out:
            alive.append(process)
    return alive


class MemoryWatch:
    """Peak memory while a block of code runs: private to processes, and in the object store."""

    def __init__(self) -> None:
        self.driver_bytes = self.largest_bytes = self.store_bytes = 0
        self.spilled_bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        import psutil
        from ray._private.internal_api import get_memory_info_reply, get_state_from_address

        state = get_state_from_address(ray.get_runtime_context().gcs_address)  # type: ignore[no-untyped-call]
        while not self._done.wait(0.2):
            held = []
            for process in living():
                try:
                    memory = process.memory_info()
                except psutil.NoSuchProcess:
                    continue
                held.append(memory.rss - memory.shared)
            store = get_memory_info_reply(state).store_stats  # type: ignore[no-untyped-call]
            self.driver_bytes = max(self.driver_bytes, held[0])
            self.largest_bytes = max(self.largest_bytes, *held)
            self.store_bytes = max(self.store_bytes, store.object_store_bytes_used)
            self.spilled_bytes = max(self.spilled_bytes, store.spilled_bytes_total)


def middle(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


class Report:
    """Rows of a benchmark: to the terminal as a table, to a JSON-lines file as records."""

    def __init__(self, title: str, out: Path | None) -> None:
        self._title, self._out = title, out
        self._readings: dict[str, list[Reading]] = {}
        self._ratios: list[tuple[str, str, str]] = []
        self._records: list[dict[str, Any]] = []

    def add(self, name: str, reading: Reading) -> Reading:
        """One repeat of a contender."""
        self._readings.setdefault(name, []).append(reading)
        record = {"contender": name, "images": reading.images, "wall_s": reading.wall_s}
        self._records.append({**record, "cpu_s": reading.cpu_s})
        return reading

    def compare(self, ours: str, rival: str, goal: str = "") -> None:
        """Paired ratios over the repeats: images per second, and CPU; above 1 is in our favour."""
        pairs = list(zip(self._readings[ours], self._readings[rival], strict=True))
        self.ratio(f"images/s: {ours} / {rival}", [a.rate / b.rate for a, b in pairs], goal)
        self.ratio(f"CPU: {rival} / {ours}", [b.cpu_ms / a.cpu_ms for a, b in pairs], goal)

    def ratio(self, name: str, values: Sequence[float], goal: str = "") -> None:
        """A ratio of one's own, a value per repeat."""
        self._ratios.append((name, middle(values), goal))
        self._records.append({"ratio": name, "values": list(values), "goal": goal})

    def note(self, name: str, value: Any) -> None:
        """A figure that is not a ratio; the terminal shows it under the tables."""
        self._records.append({"note": name, "value": value})

    def show(self) -> None:
        """Print, and append to the file where there is one."""
        console = Console(width=130)
        if self._readings:
            table = Table(title=self._title)
            for column in ("contender", "images", "images/s", "CPU-ms per image"):
                table.add_column(column, justify="left" if column == "contender" else "right")
            for name, readings in self._readings.items():
                rate, cpu = [r.rate for r in readings], [r.cpu_ms for r in readings]
                rates = f"{statistics.median(rate):,.0f} [{min(rate):,.0f}, {max(rate):,.0f}]"
                cpus = f"{statistics.median(cpu):.4f} [{min(cpu):.4f}, {max(cpu):.4f}]"
                table.add_row(name, f"{readings[0].images:,}", rates, cpus)
            console.print(table)
        if self._ratios:
            table = Table(title=f"{self._title}: paired ratios, median [range]")
            for column in ("ratio", "value", "goal"):
                table.add_column(column)
            for row in self._ratios:
                table.add_row(*row)
            console.print(table)
        for record in self._records:
            if "note" in record:
                console.print(f"{record['note']}: {record['value']}", highlight=False)
        if self._out is not None:
            with self._out.open("a") as stream:
                stream.writelines(
                    json.dumps({"benchmark": self._title, **record}) + "\n" for record in self._records
                )


def delivered(batches: Iterator[dict[str, NDArray[Any]]]) -> int:
    """Take all batches as training does, each as a tensor of its own; the number of images."""
    return sum(len(to_device(batch["image"], CPU)) for batch in batches)
