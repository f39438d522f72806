"""Groups of nodes that an autoscaler may start, from the config that ``ray up`` leaves on the head.

Ray itself reads the same file there. KubeRay's autoscaler publishes totals instead
(:func:`canopy.runtime.ray_internals.core.autoscaler_limits`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

BOOTSTRAP_CONFIG = Path("~/ray_bootstrap_config.yaml")
"""The config of a cluster on its head node."""
RAY_LABEL = "ray.io/node-group"
"""Ray's label of a node that its autoscaler started, and of the head: the name of its group."""
GROUP_LABEL = "canopy/group"
"""Label of ``cluster.yaml``: a group, or a pair of groups that differ in their market."""
MARKET_LABEL = "canopy/market"
"""Label of spot and on-demand nodes; its value ends the names of a pair of groups."""
OTHER = "other"
"""Group of nodes without a group's label."""
PLAIN_RESOURCES = {"CPU", "memory", "object_store_memory"}
"""Resources of nodes without accelerators."""
PLANNED_ENDS = (1, 4)
"""Numbers of Ray's reasons for the end of a node that was meant to end: an expected one, an idle node's."""


@dataclass(frozen=True)
class NodeGroup:
    """A kind of node that the autoscaler may start.

    Attributes:
        name: its key in ``available_node_types``.
        resources: amount of each of Ray's resources on one node.
        max_nodes: most nodes of this kind at the same time.
    """

    name: str
    resources: dict[str, float]
    max_nodes: int

    @property
    def is_plain(self) -> bool:
        """Whether its nodes have no accelerators."""
        return set(self.resources) <= PLAIN_RESOURCES


@dataclass(frozen=True)
class NodeGroups:
    """The groups of a cluster; false where none is known.

    Attributes:
        groups: the groups of workers.
        max_nodes: most workers of all groups together.
    """

    groups: tuple[NodeGroup, ...] = ()
    max_nodes: int = 0

    def __bool__(self) -> bool:
        return bool(self.groups)

    def possible(self, living: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
        """Resources of each node that may come by the limit of its own group.

        Args:
            living: living nodes as ``ray.nodes()`` describes them.
        """
        rooms = self._rooms(living)
        return [dict(group.resources) for group in self.groups for _ in range(rooms[group.name])]

    def to_come(
        self, living: Sequence[Mapping[str, Any]], *, only_plain: bool = False
    ) -> list[dict[str, float]]:
        """Resources of as many nodes as may come together, taken from the groups in turn.

        Args:
            living: living nodes as ``ray.nodes()`` describes them.
            only_plain: only nodes without accelerators come.
        """
        rooms = self._rooms(living)
        turns = [
            dict(group.resources)
            for turn in range(max(rooms.values(), default=0))
            for group in self.groups
            if turn < rooms[group.name] and (group.is_plain or not only_plain)
        ]
        # The head has a label too, and counts against no limit.
        workers = sum(group_of(node, self.groups) in rooms for node in living)
        return turns[: max(0, self.max_nodes - workers)]

    def _rooms(self, living: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        counts = Counter(group_of(node, self.groups) for node in living)
        return {group.name: max(0, group.max_nodes - counts[group.name]) for group in self.groups}


def autoscaler_groups(path: Path = BOOTSTRAP_CONFIG) -> NodeGroups:
    """The groups of the cluster whose head this machine is; none where no such config lies here."""
    try:
        file = path.expanduser()
        return _read_groups(file, file.stat().st_mtime_ns)
    except (OSError, RuntimeError):  # RuntimeError: nobody's home directory
        return NodeGroups()


@lru_cache(maxsize=4)
def _read_groups(file: Path, changed: int) -> NodeGroups:  # noqa: ARG001 (part of the key)
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError):
        return NodeGroups()
    return node_groups(config) if isinstance(config, dict) else NodeGroups()


def node_groups(config: Mapping[str, Any]) -> NodeGroups:
    """The groups of workers in a cluster's config; a group without declared resources is left out."""
    most = int(config.get("max_workers", 2))  # Ray's default
    groups = []
    for name, kind in (config.get("available_node_types") or {}).items():
        resources = amounts(kind.get("resources") or {})
        count = min(int(kind.get("max_workers", most)), most)
        if name != config.get("head_node_type") and resources and count > 0:
            groups.append(NodeGroup(str(name), resources, count))
    return NodeGroups(tuple(groups), most)


def amounts(resources: Mapping[str, Any]) -> dict[str, float]:
    """The resources of a node type as numbers."""
    return {str(name): float(amount) for name, amount in resources.items()}


def group_of(node: Mapping[str, Any], groups: Sequence[NodeGroup]) -> str | None:
    """Name of the group of a living node: from its label, else of the first group with its amounts."""
    label = labelled_group(node, {group.name for group in groups})
    if label is not None:
        return label
    amounts = {name: amount for name, amount in node.get("Resources", {}).items() if is_amount(name)}
    same = (
        group.name
        for group in groups
        if amounts == {name: amount for name, amount in group.resources.items() if is_amount(name)}
    )
    return next(same, None)


def labelled_group(node: Mapping[str, Any], names: Collection[str]) -> str | None:
    """Name of the group of a node from its labels, as in the cluster's config; None without labels.

    Args:
        node: a node as ``ray.nodes()`` describes it.
        names: the known groups. The market belongs to the name where that gives one of them: the labels
            ``gpu1`` and ``spot`` name the group ``gpu1-spot``, and ``cpu`` with ``on-demand`` is ``cpu``.
    """
    labels = node.get("Labels") or {}
    if labels.get(RAY_LABEL):
        return str(labels[RAY_LABEL])
    if not labels.get(GROUP_LABEL):
        return None
    group = str(labels[GROUP_LABEL])
    in_market = f"{group}-{labels.get(MARKET_LABEL)}"
    return in_market if in_market in names else group


def group_or_other(node: Mapping[str, Any], names: Collection[str]) -> str:
    """The same; ``other`` without labels."""
    return labelled_group(node, names) or OTHER


def living_by_group(nodes: Iterable[Mapping[str, Any]], names: Collection[str]) -> Counter[str]:
    """Number of living nodes by their group."""
    return Counter(group_or_other(node, names) for node in nodes if node["Alive"])


def lost_by_group(nodes: Iterable[Mapping[str, Any]], names: Collection[str]) -> Counter[str]:
    """Number of nodes by their group that ended without being meant to."""
    return Counter(
        group_or_other(node, names)
        for node in nodes
        if not node["Alive"] and node.get("DeathReason") not in PLANNED_ENDS
    )


def is_amount(resource: str) -> bool:
    """Whether a resource is declared per group: Ray adds memory and the node's own name itself."""
    return resource not in ("memory", "object_store_memory") and not resource.startswith("node:")
