"""What trainings need of the cluster and what the cluster has, in Ray's resources."""

from __future__ import annotations

import ray

from canopy.config import FleetConfig, ResourcesConfig
from canopy.data.loading.batch_streams import TASK_CPUS
from canopy.data.loading.chip_source import ChipSource
from canopy.runtime.ray_internals.core import autoscaler_limits
from canopy.train.fleet.scheduler import ResourceRequest, Resources, estimate_work, with_promised_node
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


def cluster_capacity(config: FleetConfig) -> list[Resources]:
    """Resources of each living node, plus one virtual node for what the autoscaler may still add."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return with_promised_node(nodes, config.promised or autoscaler_limits())
