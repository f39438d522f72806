"""The node groups of a cluster, from the file that is given to ``ray up``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from canopy.config.validation_errors import yaml_problem
from canopy.cost.prices import PriceTable
from canopy.errors import ConfigError
from canopy.storage import files
from canopy.train.fleet.scheduler import Resources

OPTION = "budget.cluster"


@dataclass(frozen=True)
class PricedGroup:
    """Nodes that an autoscaler may start.

    Args:
        name: name of the group.
        resources: resources of a node.
        max_nodes: largest number of nodes.
        price: price of a node per hour.
        priority: groups of a higher priority are preferred among those that fit equally well.
        is_spot: whether the cloud may take its nodes away.
    """

    name: str
    resources: Resources
    max_nodes: int
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
    """The cluster of a file for ``ray up``.

    Raises:
        ConfigError: when the file cannot be used, or a group has no price.
    """
    if not files.exists(path) or files.is_dir(path):
        raise ConfigError(OPTION, "must be a file for `ray up`", path, "Give the path of cluster.yaml.")
    try:
        content = yaml.safe_load(files.read_bytes(path))
        kinds: dict[str, Any] = content["available_node_types"]
        head_name = str(content["head_node_type"])
        workers = int(content.get("max_workers", 2))
        groups = {name: priced_group(name, kind, workers, prices) for name, kind in kinds.items()}
        return Cluster(
            head=groups.pop(head_name),
            groups=tuple(group for group in groups.values() if group.max_nodes),
            max_nodes=workers,
            idle_hours=float(content.get("idle_timeout_minutes", 5)) / 60,
            boot_hours=prices.boot_minutes / 60,
        )
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(OPTION, "must be YAML", f"{path}: {yaml_problem(error)}", "Correct it.") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        need = "must name available_node_types with resources, and head_node_type"
        raise ConfigError(OPTION, need, f"{path} ({type(error).__name__}: {error})", "Correct it.") from None


def priced_group(name: str, kind: dict[str, Any], max_workers: int, prices: PriceTable) -> PricedGroup:
    """The group of one node type.

    Raises:
        ConfigError: when it has no price.
    """
    price = prices.price(name)
    if price is None:
        need = f"must have the price of each node group of {OPTION}"
        raise ConfigError(
            "budget.prices", need, f"none for {name}", f"Add nodes: {name}: PRICE to the table."
        )
    return PricedGroup(
        name=name,
        resources={resource: float(amount) for resource, amount in kind["resources"].items()},
        max_nodes=int(kind.get("max_workers", max_workers)),
        price=price,
        priority=float(kind.get("priority", 0)),
        is_spot=kind.get("labels", {}).get("canopy/market") == "spot",
    )
