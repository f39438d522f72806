"""Which trainings start now: pure functions over the resources that trainings need and nodes have.

The queue is ordered longest first (Graham 1969: the longest-processing-time rule ends within 4/3 of the
optimal time on equal machines), so that no long training is left over at the end. A training further back
may overtake the first one that has to wait only where that does not delay it (EASY backfilling, Lifka 1995):
it leaves the room that the waiting one will need, or it is expected to end before that room could be free. So
a large training waits only for those that ran when its turn came, and small ones fill the gaps meanwhile.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from canopy.config import ModelConfig, VariantConfig

Resources = dict[str, float]
"""Amount of each resource by Ray's name for it (``CPU``, ``GPU``)."""
TOLERANCE = 1e-6
"""Shortage that rounding may cause and that is ignored."""


@dataclass(frozen=True)
class ResourceRequest:
    """Resources that a training needs.

    Args:
        name: name of the training.
        work: remaining work; only ratios matter (see :func:`estimate_work`).
        bundles: resources of each process; one bundle lies on one node.
    """

    name: str
    work: float
    bundles: tuple[Resources, ...]


def estimate_work(variant: VariantConfig, rows: int, image_size: int) -> float:
    """Relative duration of a training, for comparison with other trainings on similar devices.

    It is the number of images over all epochs, times the multiply-adds of the backbone per image, divided by
    the number of workers. Early stopping and the speed of the device are not known and left out.

    Args:
        variant: the variant.
        rows: number of images per epoch.
        image_size: height and width of a chip in pixels.
    """
    model, optim = variant.model, variant.optim
    images = (optim.epochs + optim.rebalance_epochs) * rows
    return images * multiply_adds(model.backbone, model.input_size, image_size) / variant.scale.workers


@functools.lru_cache(maxsize=256)
def multiply_adds(backbone: str, input_size: int | None, image_size: int) -> float:
    """Multiply-adds of a backbone per image, counted from shapes in well under a second.

    Args:
        backbone: name of the backbone.
        input_size: height and width of its input in pixels; None for the size of the chips.
        image_size: height and width of a chip in pixels.

    Raises:
        ConfigError: see :func:`canopy.models.backbones.probe_backbone`.
    """
    from torch.utils.flop_counter import FlopCounterMode

    from canopy.models.backbones import probe_backbone

    with FlopCounterMode(display=False) as counter:
        probe_backbone(ModelConfig(backbone=backbone, input_size=input_size), image_size)
    # The check runs on two images, and the counter counts a multiply-add as two operations.
    return float(counter.get_total_flops()) / 4


def longest_first(requests: Iterable[ResourceRequest]) -> list[ResourceRequest]:
    """The requests in the order in which they should start; equals keep their order."""
    return sorted(requests, key=lambda request: -request.work)


def startable(
    waiting: Sequence[ResourceRequest], running: Sequence[ResourceRequest], nodes: Sequence[Resources]
) -> list[ResourceRequest]:
    """The requests of ``waiting`` that start now, together with ``running``.

    A training that would not fit into the empty cluster is started as well, one at a time: its pending
    request is what makes an autoscaler add nodes, and an incomplete placement group takes no resources.

    Args:
        waiting: requests in the order of preference.
        running: requests with their remaining work.
        nodes: resources of each node when nothing runs, including nodes that the autoscaler may add.
    """
    possible = {request.name: place([request], nodes) is not None for request in [*waiting, *running]}
    too_large = [request for request in waiting if not possible[request.name]]
    chosen = too_large[:1] if all(possible[request.name] for request in running) else []
    placed = [request for request in running if possible[request.name]]
    free = place(placed, nodes)
    first_blocked: ResourceRequest | None = None
    for request in waiting:
        if free is None:  # a running training has lost its node: it comes first
            break
        if not possible[request.name]:
            continue
        left = place([request], free)
        if left is None:
            first_blocked = first_blocked or request
        elif first_blocked is None or can_overtake(request, first_blocked, placed, nodes):
            chosen.append(request)
            placed.append(request)
            free = left
    return chosen


def can_overtake(
    request: ResourceRequest,
    blocked: ResourceRequest,
    running: Sequence[ResourceRequest],
    nodes: Sequence[Resources],
) -> bool:
    """Whether ``request`` may start before ``blocked``, which waits for some of ``running`` to end."""
    rest = sorted(running, key=lambda other: -other.work)
    wait = 0.0
    while rest and place([*rest, blocked], nodes) is None:
        wait = rest.pop().work
    return request.work <= wait or place([*rest, blocked, request], nodes) is not None


def place(requests: Sequence[ResourceRequest], nodes: Sequence[Resources]) -> list[Resources] | None:
    """Free resources of ``nodes`` with every bundle of ``requests`` on one of them; None if they do not fit.

    The largest bundles go first, each to the fullest node that can hold it (best fit). Ray packs placement
    groups similarly; where it packs otherwise, a training waits a little for its room.
    """
    free = [dict(node) for node in nodes]
    bundles = [bundle for request in requests for bundle in request.bundles]
    for bundle in sorted(bundles, key=bundle_size, reverse=True):
        fitting = [node for node in free if fits(bundle, node)]
        if not fitting:
            return None
        best = min(fitting, key=lambda node: (node.get("GPU", 0.0), node.get("CPU", 0.0)))
        for name, amount in bundle.items():
            best[name] = best.get(name, 0.0) - amount
    return free


def never_fits(bundles: Sequence[Resources], nodes: Sequence[Resources]) -> str | None:
    """Why no placement of ``bundles`` on ``nodes`` exists, even when nothing else runs; None if one may.

    Args:
        bundles: resources of each process; one bundle lies on one node.
        nodes: resources of each node, present or to come.
    """
    for bundle in bundles:
        if not any(fits(bundle, node) for node in nodes):
            return f"a process of {describe_resources(bundle)}, which no node has"
    for name in sorted({name for bundle in bundles for name in bundle}):
        needed = sum(bundle.get(name, 0.0) for bundle in bundles)
        present = sum(node.get(name, 0.0) for node in nodes)
        if needed > present + TOLERANCE:
            return f"processes of {needed:g} {name} together, and all nodes have {present:g}"
    return None


def describe_resources(resources: Resources) -> str:
    """Resources in words, such as ``4 CPU, 1 GPU``."""
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())


def fits(bundle: Resources, node: Resources) -> bool:
    """Whether ``node`` has room for ``bundle``."""
    return all(node.get(name, 0.0) + TOLERANCE >= amount for name, amount in bundle.items())


def bundle_size(bundle: Resources) -> tuple[int, float, float]:
    """Sort key of bundles: number of resources, then GPUs, then CPUs."""
    return len(bundle), bundle.get("GPU", 0.0), bundle.get("CPU", 0.0)


def with_promised_node(nodes: Sequence[Resources], promised: Resources) -> list[Resources]:
    """``nodes``, and one more node with the resources by which the cluster may still grow.

    Args:
        nodes: resources of the present nodes.
        promised: maximum resources of the whole cluster.
    """
    missing = {
        name: amount - sum(node.get(name, 0.0) for node in nodes)
        for name, amount in promised.items()
        if amount - sum(node.get(name, 0.0) for node in nodes) > TOLERANCE
    }
    return [*map(dict, nodes), *([missing] if missing else [])]
