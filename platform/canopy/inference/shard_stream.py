"""The stream of Ray Data that all batch inference shares: tasks read, actors predict, tasks write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, TaskPoolStrategy
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from canopy.data.loading.ray_stream import Batch, configure_ray_data
from canopy.runtime.ray_internals.data import map_batches_with
from canopy.runtime.ray_tasks import cluster_cpus
from canopy.runtime.task_names import task_name

if TYPE_CHECKING:
    from canopy.inference.batch import Workplace

ACTOR_SHARE = 0.5
"""Logical CPUs of an actor per thread of its networks. The rest is for the tasks, which need little time."""
TASK_SHARE = 0.25
"""Logical CPUs of a decoding task where the networks run on CPUs."""
CRASH_RETRIES = 2
"""Further attempts at a shard whose worker process died: by Ray, and of the pipeline without any progress."""


def shard_stream(
    shards: Sequence[int],
    read: Callable[[Batch], Batch],
    predictor: type,
    arguments: tuple[Any, ...],
    write: Callable[[Batch], Batch],
    place: Workplace,
    on_this_node: bool,
) -> Any:
    """The dataset of what ``write`` returns, one block per shard, in the order in which they finish.

    Args:
        shards: numbers of the shards, at least one.
        read: from a block with the column ``shard``, one row, to a block of chips.
        predictor: class of the actors, called with a block of chips.
        arguments: its constructor's.
        write: writes what an actor returned.
        place: where the networks run.
        on_this_node: whether ``write`` must run on this machine, because the output lies on its disks.
    """
    store = float(ray.cluster_resources().get("object_store_memory", 0))  # type: ignore[no-untyped-call]
    configure_ray_data(memory=int(store / 2), in_order=False)
    node = {"scheduling_strategy": _this_node()} if on_this_node else {}
    indices = ray.data.from_blocks([pa.table({"shard": [shard]}) for shard in shards])
    chips = map_batches_with(
        indices,
        _named(read, "read_shard"),
        {"max_retries": CRASH_RETRIES},
        batch_size=None,
        num_cpus=1 if place.gpus else TASK_SHARE,
        compute=TaskPoolStrategy(size=min(len(shards), max(1, int(cluster_cpus())))),
    )
    predictions = map_batches_with(
        chips,
        predictor,
        # A lost actor ends the pipeline, which then starts again: Ray cannot restart one whose arguments
        # lie in the object store.
        {"max_restarts": 0, "max_task_retries": 0},
        batch_size=None,
        fn_constructor_args=arguments,
        compute=ActorPoolStrategy(
            min_size=1,
            max_size=place.actors,
            initial_size=place.actors,
            max_tasks_in_flight_per_actor=2,
        ),
        num_cpus=ACTOR_SHARE * (1 if place.gpus else place.threads),
        num_gpus=place.gpus or None,
    )
    written = map_batches_with(
        predictions,
        _named(write, "write_shard"),
        {"max_retries": CRASH_RETRIES, **node},
        batch_size=None,
        num_cpus=0,
    )
    written.set_name(task_name("predict"))
    return written


def _named(work: Callable[[Batch], Batch], name: str) -> Callable[[Batch], Batch]:
    """``work`` as a plain function, named for Ray's dashboard: Ray Data copies all fields of a dataclass."""

    def run(block: Batch) -> Batch:
        return work(block)

    run.__name__ = task_name(name)
    return run


def _this_node() -> Any:
    """The node of this process, whose disks hold a local output."""
    node = ray.get_runtime_context().get_node_id()
    return NodeAffinitySchedulingStrategy(node, soft=False)
