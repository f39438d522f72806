"""Gauges of the driver: what a run, its stages and its cluster do, at the Prometheus endpoint of its node.

Half a minute after a run has ended, its series are gone.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from typing import Any

from canopy.runtime.logging import current_context
from canopy.runtime.task_names import ascii_text

DRIVER_GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "canopy_stage_running": ("1 while a stage runs, else 0.", ("stage",)),
    "canopy_stage_done": ("Items of a stage that are done, by what is counted.", ("stage", "what")),
    "canopy_stage_total": ("Items of a stage, by what is counted.", ("stage", "what")),
    "canopy_trainings": ("Trainings of the fleet by their state.", ("state",)),
    "canopy_sweep_trials": ("Trials of a sweep by their state.", ("variant", "state")),
    "canopy_sweep_best_score": ("Best score of a complete trial of a sweep.", ("variant",)),
    "canopy_nodes": ("Living nodes of the cluster by their group.", ("group",)),
    "canopy_nodes_lost": ("Nodes that were lost since the run began, by their group.", ("group",)),
    "canopy_node_hours": ("Node-hours of the run, over all its starts.", ()),
    "canopy_node_hours_limit": ("Limit of the node-hours.", ()),
    "canopy_cost": ("Cost of the run over all its starts, in the currency of the price table.", ()),
    "canopy_cost_limit": ("Limit of the cost.", ()),
}
"""Description and tags of each gauge; the run is a further tag of all."""

KEEP_EVERY_S = 5.0
"""Seconds between two repetitions of a gauge: Ray drops one that is not set for two of its export intervals,
which are 10 seconds by default."""


class GaugeKeeper:
    """Sets gauges and repeats their values in a thread, so that they last as long as what they describe."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[Any, float]] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def set(self, gauge: Any, name: str, value: float, tags: Mapping[str, str]) -> None:
        """Set a gauge of Ray now, and repeat it from now on.

        Args:
            gauge: the gauge.
            name: its name.
            value: the new value.
            tags: a value in printable ASCII for each of its tags.
        """
        with self._lock:
            self._values[name, tuple(sorted(tags.items()))] = gauge, float(value)
            if self._thread is None:
                self._thread = threading.Thread(target=self._repeat, name="gauges", daemon=True)
                self._thread.start()
        gauge.set(float(value), dict(tags))

    def forget(self, run: str) -> None:
        """Repeat the gauges of a run no longer.

        Args:
            run: value of their tag ``run``.
        """
        with self._lock:
            kept = {key: value for key, value in self._values.items() if dict(key[1]).get("run") != run}
            self._values = kept

    def close(self) -> None:
        """End the repetition."""
        self._closed.set()

    def _repeat(self) -> None:
        while not self._closed.wait(KEEP_EVERY_S):
            if not is_connected():
                continue
            with self._lock:
                values = list(self._values.items())
            for (_, tags), (gauge, value) in values:
                gauge.set(value, dict(tags))


_gauges: dict[str, Any] = {}
_lock = threading.Lock()
_keeper = GaugeKeeper()


def is_connected() -> bool:
    """Whether this process is connected to Ray; without importing it."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def set_gauge(name: str, value: float, **tags: str) -> None:
    """Set one of ``DRIVER_GAUGES``; does nothing in a process that has not connected to Ray.

    Args:
        name: its name.
        value: the new value; it lasts until :func:`forget_gauges`.
        tags: a value for each of its tags; ``run`` is that of the log context where it is not given.
    """
    text, names = DRIVER_GAUGES[name]
    if not is_connected():
        return
    from ray.util.metrics import Gauge

    with _lock:
        if name not in _gauges:
            _gauges[name] = Gauge(name, description=text, tag_keys=("run", *names))
    tags = {"run": current_context().get("run", ""), **tags}
    _keeper.set(_gauges[name], name, value, {tag: ascii_text(given) for tag, given in tags.items()})


def forget_gauges(run: str) -> None:
    """Let the gauges of a run end with it; half a minute later its series are gone.

    Args:
        run: path or URI of the run directory, as it is shown.
    """
    _keeper.forget(ascii_text(run))
