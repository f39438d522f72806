"""Measures time and CPU of all processes involved, and peak memory; reports paired ratios and tables."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from canopy.runtime.ray_internals.core import object_store_bytes


@dataclass(frozen=True)
class Reading:
    """Time that one repeat of a contender took.

    Args:
        images: number of images delivered.
        wall_s: wall-clock time in seconds.
        cpu_s: user and system time of all its processes in seconds.
    """

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
        """Add the times of two steps over the same images; ``images`` is the second step's."""
        return Reading(other.images, self.wall_s + other.wall_s, self.cpu_s + other.cpu_s)


class CpuMeter:
    """Measures CPU seconds of this process and its descendants: user and system, ended children included.

    Args:
        exclude: ids of descendants that belong to another contender.
    """

    def __init__(self, exclude: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        self._exclude = exclude

    def seconds(self) -> dict[int, float]:
        """CPU seconds by process id, so that a process that ends does not reduce the sum."""
        return {p.pid: sum(p.cpu_times()[:4]) for p in running_processes(self._exclude)}

    def measure(self, work: Callable[[], int]) -> Reading:
        """Run ``work``, which returns the number of images that it delivered, and return its reading."""
        before, start = self.seconds(), time.perf_counter()
        images = work()
        wall_s, after = time.perf_counter() - start, self.seconds()
        return Reading(images, wall_s, sum(t - before.get(pid, 0.0) for pid, t in after.items()))


def child_process_ids() -> set[int]:
    """The ids of all descendants of this process."""
    return {process.pid for process in running_processes()[1:]}


def alternate(contenders: Sequence[Callable[[], None]], repeats: int) -> None:
    """Run each contender once per repeat, in reversed order every other repeat."""
    for n in range(repeats):
        for contender in contenders if n % 2 == 0 else contenders[::-1]:
            contender()


def running_processes(exclude: set[int] = frozenset()) -> list[Any]:  # type: ignore[assignment]
    """This process and all its descendants as psutil processes, this process first."""
    import psutil  # type: ignore[import-untyped]  # a dependency of Ray

    me = psutil.Process()
    alive = []
    for process in [me, *me.children(recursive=True)]:
        try:
            process.cpu_times()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if process.pid not in exclude:
            alive.append(process)
    return alive


def private_bytes() -> list[int]:
    """Private memory in bytes of this process, then of each of its descendants."""
    import psutil  # a dependency of Ray

    found = []
    for process in running_processes():
        try:
            memory = process.memory_info()
        except psutil.NoSuchProcess:
            continue
        found.append(memory.rss - memory.shared)
    return found


class MemoryMonitor:
    """Samples peak memory five times a second while a block of code runs.

    Attributes:
        driver_bytes: private memory of this process.
        largest_bytes: private memory of the largest process.
        store_bytes: memory in use in the object store.
        spilled_bytes: bytes that the object store spilled to disk.
    """

    def __init__(self) -> None:
        self.driver_bytes = self.largest_bytes = self.store_bytes = 0
        self.spilled_bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> MemoryMonitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.2):
            own_bytes, *others_bytes = private_bytes()
            used_bytes, spilled_bytes = object_store_bytes()
            self.driver_bytes = max(self.driver_bytes, own_bytes)
            self.largest_bytes = max(self.largest_bytes, own_bytes, *others_bytes)
            self.store_bytes = max(self.store_bytes, used_bytes)
            self.spilled_bytes = max(self.spilled_bytes, spilled_bytes)


def median_and_range(values: Sequence[float]) -> str:
    """The median and the range of ``values`` as text."""
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


class Report:
    """Results of a benchmark: tables on the terminal, records in a JSON-lines file.

    Args:
        title: title of the tables, and ``benchmark`` in the records.
        out: JSON-lines file to append records to; None writes no file.
    """

    def __init__(self, title: str, out: Path | None) -> None:
        self._title, self._out = title, out
        self._readings: dict[str, list[Reading]] = {}
        self._ratios: list[tuple[str, str, str]] = []
        self._records: list[dict[str, Any]] = []

    def add_reading(self, name: str, reading: Reading) -> Reading:
        """Add and return the reading of one repeat of the contender ``name``."""
        self._readings.setdefault(name, []).append(reading)
        record = {"contender": name, "images": reading.images, "wall_s": reading.wall_s}
        self._records.append({**record, "cpu_s": reading.cpu_s})
        return reading

    def compare(self, ours: str, baseline: str, goal: str = "") -> None:
        """Add the paired ratios of images per second and of CPU; above 1, ``ours`` is better."""
        pairs = list(zip(self._readings[ours], self._readings[baseline], strict=True))
        self.add_ratio(f"images/s: {ours} / {baseline}", [a.rate / b.rate for a, b in pairs], goal)
        self.add_ratio(f"CPU: {baseline} / {ours}", [b.cpu_ms / a.cpu_ms for a, b in pairs], goal)

    def add_ratio(self, name: str, values: Sequence[float], goal: str = "") -> None:
        """Add a ratio with one value per repeat."""
        self._ratios.append((name, median_and_range(values), goal))
        self._records.append({"ratio": name, "values": list(values), "goal": goal})

    def add_value(self, name: str, value: Any) -> None:
        """Add a value that is not a ratio; the terminal shows it below the tables."""
        self._records.append({"note": name, "value": value})

    def show(self) -> None:
        """Print the tables, and append the records to the file if there is one."""
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
