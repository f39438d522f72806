"""Groups of nodes that an autoscaler may start, from the config that ``ray up`` leaves on the head.

Ray itself reads the same file there. KubeRay's autoscaler publishes totals instead
(:func:`canopy.runtime.ray_internals.core.autoscaler_limits`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

BOOTSTRAP_CONFIG = Path("~/ray_bootstrap_config.yaml")
"""The config of a cluster on its head node."""
GROUP_LABELS = ("ray.io/node-group", "canopy/group")
"""Labels of a node with the name of its group: Ray's own, and that of ``cluster.yaml``."""
MARKET_LABEL = "canopy/market"
"""Label of spot and on-demand nodes; its value ends the name of their group."""


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

    def to_come(self, living: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
        """Resources of as many nodes as may come together, taken from the groups in turn."""
        rooms = self._rooms(living)
        turns = [
            dict(group.resources)
            for turn in range(max(rooms.values(), default=0))
            for group in self.groups
            if turn < rooms[group.name]
        ]
        workers = sum(group_of(node, self.groups) is not None for node in living)
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
        resources = {key: float(amount) for key, amount in (kind.get("resources") or {}).items()}
        count = min(int(kind.get("max_workers", most)), most)
        if name != config.get("head_node_type") and resources and count > 0:
            groups.append(NodeGroup(str(name), resources, count))
    return NodeGroups(tuple(groups), most)


def group_of(node: Mapping[str, Any], groups: Sequence[NodeGroup]) -> str | None:
    """Name of the group of a living node: from its label, else of the first group with its amounts."""
    label = labelled_group(node)
    if label is not None:
        return label
    amounts = {name: amount for name, amount in node.get("Resources", {}).items() if is_amount(name)}
    same = (
        group.name
        for group in groups
        if amounts == {name: amount for name, amount in group.resources.items() if is_amount(name)}
    )
    return next(same, None)


def labelled_group(node: Mapping[str, Any]) -> str | None:
    """Name of the group of a node from its labels, with its market if it has one; None without labels."""
    labels = node.get("Labels") or {}
    group = next((str(labels[name]) for name in GROUP_LABELS if labels.get(name)), None)
    market = labels.get(MARKET_LABEL)
    return group if group is None or market is None or group.endswith(f"-{market}") else f"{group}-{market}"


def is_amount(resource: str) -> bool:
    """Whether a resource is declared per group: Ray adds memory and the node's own name itself."""
    return resource not in ("memory", "object_store_memory") and not resource.startswith("node:")
