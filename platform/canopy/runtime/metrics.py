"""Gauges of the driver: what a run, its stages and its cluster do, at the Prometheus endpoint of its node.

A gauge lasts as long as the process that sets it: half a minute after a run has ended, its series are gone.
"""

from __future__ import annotations

import sys
import threading
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

_gauges: dict[str, Any] = {}
_lock = threading.Lock()


def set_gauge(name: str, value: float, **tags: str) -> None:
    """Set one of ``DRIVER_GAUGES``; does nothing in a process that has not connected to Ray.

    Args:
        name: its name.
        value: the new value.
        tags: a value for each of its tags; ``run`` is that of the log context where it is not given.
    """
    text, names = DRIVER_GAUGES[name]
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    from ray.util.metrics import Gauge

    with _lock:
        if name not in _gauges:
            _gauges[name] = Gauge(name, description=text, tag_keys=("run", *names))
    tags = {"run": current_context().get("run", ""), **tags}
    _gauges[name].set(float(value), {tag: ascii_text(text) for tag, text in tags.items()})
