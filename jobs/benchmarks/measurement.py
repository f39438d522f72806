"""Measuring: time and CPU of all processes involved, peak memory, paired ratios, tables."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.table import Table


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


class CpuMeter:
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


def spread(values: Sequence[float]) -> str:
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
        self._ratios.append((name, spread(values), goal))
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
