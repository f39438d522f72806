"""The node groups of a cluster, from the file that is given to ``ray up`` or to KubeRay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from canopy.cost.kuberay import as_cluster_config, is_manifest
from canopy.cost.prices import PriceTable
from canopy.errors import ConfigError
from canopy.runtime.node_groups import MARKET_LABEL, NodeGroup, amounts, node_groups
from canopy.storage import files
from canopy.storage.yaml_files import read_yaml

OPTION = "budget.cluster"
ON_DEMAND = "on-demand"


@dataclass(frozen=True)
class PricedGroup(NodeGroup):
    """Nodes that an autoscaler may start, and what they cost.

    Attributes:
        price: price of a node per hour.
        priority: groups of a higher priority are preferred among those that fit equally well.
        is_spot: whether the cloud may take its nodes away.
    """

    price: float
    priority: float = 0.0
    is_spot: bool = False


@dataclass(frozen=True)
class Cluster:
    """A head and what may be added to it.

    Args:
        head: the head's group.
        groups: groups of workers.
        max_nodes: largest number of workers of all groups together.
        idle_hours: hours after which an idle worker ends.
        boot_hours: hours from the request of a worker to its first task.
    """

    head: PricedGroup
    groups: tuple[PricedGroup, ...]
    max_nodes: int
    idle_hours: float
    boot_hours: float


def read_cluster(path: str, prices: PriceTable) -> Cluster:
    """The cluster of a file for ``ray up``, or of a manifest of KubeRay.

    Raises:
        ConfigError: when the file cannot be used, or a group has no price.
    """
    if not files.exists(path) or files.is_dir(path):
        raise ConfigError(OPTION, "must be a file for `ray up`", path, "Give the path of cluster.yaml.")
    content = read_yaml(OPTION, path)
    try:
        if is_manifest(content):
            content = as_cluster_config(content)
        kinds: dict[str, Any] = content["available_node_types"]
        head = content["head_node_type"]
        # Without Ray, which may know the resources of a type of machine, the file must say them.
        resources = {str(name): amounts(kind["resources"]) for name, kind in kinds.items()}
        found = node_groups(content)
        return Cluster(
            head=priced(NodeGroup(str(head), resources[str(head)], 0), kinds[head], prices),
            groups=tuple(priced(group, kinds[group.name], prices) for group in found.groups),
            max_nodes=found.max_nodes,
            idle_hours=float(content.get("idle_timeout_minutes", 5)) / 60,
            boot_hours=prices.boot_minutes / 60,
        )
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        if isinstance(error, ConfigError):
            raise
        need = "must name available_node_types with resources, and head_node_type, or be one KubeRay manifest"
        raise ConfigError(OPTION, need, f"{path} ({type(error).__name__}: {error})", "Correct it.") from None


def priced(group: NodeGroup, kind: Mapping[str, Any], prices: PriceTable) -> PricedGroup:
    """A group with its price.

    Args:
        group: the group.
        kind: its node type in the file.
        prices: the price table.

    Raises:
        ConfigError: when it has no price.
    """
    price = prices.price(group.name)
    if price is None:  # a group whose nodes' market is decided elsewhere: node pools of Kubernetes
        price = prices.price(f"{group.name}-{ON_DEMAND}")
    if price is None:
        need = f"must have the price of each node group of {OPTION}"
        remedy = f"Add nodes: {group.name}: PRICE to the table."
        raise ConfigError("budget.prices", need, f"none for {group.name}", remedy)
    return PricedGroup(
        name=group.name,
        resources=group.resources,
        max_nodes=group.max_nodes,
        price=price,
        priority=float(kind.get("priority", 0)),
        is_spot=kind.get("labels", {}).get(MARKET_LABEL) == "spot",
    )
