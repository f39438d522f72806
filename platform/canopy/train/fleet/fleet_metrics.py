"""Metrics of the fleet as a whole: trainings by their state, nodes that live and nodes that were lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from canopy.runtime.metrics import set_gauge
from canopy.runtime.node_groups import labelled_group

STATES = ("queued", "running", "done", "failed")
PLANNED_ENDS = (1, 4)
"""Numbers of Ray's reasons for the end of a node that was meant to end: an expected one, an idle node's."""


class FleetMetrics:
    """Sets the fleet's gauges.

    Args:
        run: path or URI of the run directory, as it is shown.
        total: number of trainings.
        nodes: nodes of the cluster at the start, as ``ray.nodes()`` gives them.
    """

    def __init__(self, run: str, total: int, nodes: Iterable[Mapping[str, Any]]) -> None:
        self._run, self._total = run, total
        self._lost_before = lost_nodes(nodes)

    def update(self, running: int, queued: int, failed: int, nodes: Iterable[Mapping[str, Any]]) -> None:
        """Set all gauges; the trainings that are left over are done."""
        counts = {"queued": queued, "running": running, "failed": failed}
        counts["done"] = self._total - sum(counts.values())
        for state in STATES:
            set_gauge("canopy_trainings", counts[state], run=self._run, state=state)
        nodes = list(nodes)
        living = Counter(group_of(node) for node in nodes if node["Alive"])
        lost = lost_nodes(nodes)
        for group in sorted({group_of(node) for node in nodes}):
            set_gauge("canopy_nodes", living[group], run=self._run, group=group)
            set_gauge("canopy_nodes_lost", lost[group] - self._lost_before[group], run=self._run, group=group)


def lost_nodes(nodes: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Number of nodes by their group that ended without being meant to."""
    return Counter(
        group_of(node) for node in nodes if not node["Alive"] and node.get("DeathReason") not in PLANNED_ENDS
    )


def group_of(node: Mapping[str, Any]) -> str:
    """The group of a node by its labels; ``other`` without them."""
    return labelled_group(node) or "other"
