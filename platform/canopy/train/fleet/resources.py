"""What trainings need of the cluster and what the cluster has, in Ray's resources."""

from __future__ import annotations

import ray

from canopy.config import Experiment, FleetConfig, ResourcesConfig, derive
from canopy.data.loading.batch_streams import TASK_CPUS
from canopy.data.loading.chip_source import ChipSource
from canopy.errors import ConfigError
from canopy.runtime.cluster import started_here
from canopy.runtime.node_groups import autoscaler_groups
from canopy.runtime.ray_internals.core import autoscaler_limits
from canopy.train.fleet.scheduler import (
    ResourceRequest,
    Resources,
    estimate_work,
    never_fits,
    with_promised_node,
)
from canopy.train.training_run import TrainingRun


def resource_request(training_run: TrainingRun, chips: ChipSource) -> ResourceRequest:
    """The request of a training."""
    # All trainings learn from the same share of the chips, so their total serves to compare them.
    work = estimate_work(training_run.variant, len(chips.uris), chips.size)
    return ResourceRequest(training_run.name, work, bundles(training_run.variant.scale))


def bundles(scale: ResourcesConfig) -> tuple[Resources, ...]:
    """Resources of each worker, and of each worker's data task, which may run on another node."""
    return (worker_resources(scale),) * scale.workers + ({"CPU": TASK_CPUS},) * scale.workers


def worker_resources(scale: ResourcesConfig) -> Resources:
    """Resources of one worker."""
    resources = {"CPU": scale.cpus_per_worker}
    if scale.gpus_per_worker:
        resources["GPU"] = scale.gpus_per_worker
    if scale.accelerator:
        resources[scale.accelerator] = 1.0
    return resources


def cluster_capacity(config: FleetConfig, *, together: bool = True) -> list[Resources]:
    """Resources of each living node and of each that the autoscaler may still start, as far as is known.

    What may come is known from ``fleet.promised``, from the totals that KubeRay publishes (one virtual node
    for the rest), or from the groups in the cluster's config on the head.

    Args:
        config: its ``promised``.
        together: only as many nodes as may come together; False: every node that may come instead of others.
    """
    living = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    nodes = [node["Resources"] for node in living]
    promised = config.promised or autoscaler_limits()
    if promised or started_here():
        return with_promised_node(nodes, promised)
    groups = autoscaler_groups()
    return [*nodes, *(groups.to_come(living) if together else groups.possible(living))]


def is_capacity_known(config: FleetConfig) -> bool:
    """Whether no node can come beyond those of :func:`cluster_capacity`."""
    return bool(config.promised or autoscaler_limits() or started_here() or autoscaler_groups())


def check_demand(config: Experiment) -> None:
    """Refuse a variant that no node of the cluster can ever hold; Ray would wait for such a node.

    Nothing is refused where it is not known which nodes may come.

    Raises:
        ConfigError: names the variant, what it needs and what there is.
    """
    if not is_capacity_known(config.fleet):
        return
    nodes = cluster_capacity(config.fleet, together=False)
    for variant in config.variants:
        scale = variant.scale
        fewest = derive(scale, workers=scale.min_workers or scale.workers, min_workers=None)
        reason = never_fits(bundles(fewest), nodes)
        if reason is not None:
            raise ConfigError(
                f"variant {variant.name}: scale",
                "must fit into the cluster, with the nodes that its autoscaler may start",
                reason,
                "Lower scale.workers, cpus_per_worker or gpus_per_worker, correct scale.accelerator, or add "
                "nodes (a group in the cluster's config; on an autoscaler without published limits, set "
                "fleet.promised, such as GPU 4).",
            )
