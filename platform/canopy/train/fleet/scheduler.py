"""Which trainings start now: pure functions over what they ask and what the nodes have.

The queue is ordered longest first (Graham 1969: the longest-processing-time rule ends within 4/3 of the
best possible time on equal machines), so that no long training is left over at the end. A training further
back may overtake the first one that has to wait only where that does it no harm (EASY backfilling, Lifka
1995): it leaves the room that the waiting one will need, or it is expected to end before that room could be
free. So a large training waits for those that ran when its turn came and for nobody else, and small ones
fill the gaps meanwhile.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from canopy.config import ModelConfig, VariantConfig

Amounts = dict[str, float]
"""Resource name to quantity."""
SLACK = 1e-6


@dataclass(frozen=True)
class Ask:
    """What a training asks of the cluster.

    Args:
        name: of the unit.
        work: what is still to be done; only ratios matter (see :func:`work_of`).
        bundles: resources of each process; one bundle lies on one node.
    """

    name: str
    work: float
    bundles: tuple[Amounts, ...]


def work_of(variant: VariantConfig, rows: int, image_size: int) -> float:
    """An estimate of how long a training takes, in a unit that means nothing by itself.

    Images to look at, times multiply-adds of the backbone for one image, over workers. It leaves out what it
    cannot know (early stopping, the device), so it compares trainings on like devices.
    """
    model, optim = variant.model, variant.optim
    images = (optim.epochs + optim.rebalance_epochs) * rows
    return images * multiply_adds(model.backbone, model.input_size, image_size) / variant.scale.workers


@functools.lru_cache(maxsize=256)
def multiply_adds(backbone: str, input_size: int | None, image_size: int) -> float:
    """Multiply-adds of one image's way through a backbone, counted on shapes alone, in well under a second.

    Raises:
        ConfigError: see :func:`canopy.models.backbones.check_backbone`.
    """
    from torch.utils.flop_counter import FlopCounterMode

    from canopy.models.backbones import check_backbone

    with FlopCounterMode(display=False) as counter:
        check_backbone(ModelConfig(backbone=backbone, input_size=input_size), image_size)
    return float(counter.get_total_flops()) / 4  # it looks at two images and counts a multiply-add as two


def longest_first(asks: Iterable[Ask]) -> list[Ask]:
    """In the order in which they should start; equals stay as they stood."""
    return sorted(asks, key=lambda ask: -ask.work)


def startable(waiting: Sequence[Ask], running: Sequence[Ask], nodes: Sequence[Amounts]) -> list[Ask]:
    """Which of ``waiting`` start now, beside ``running``.

    Args:
        waiting: in the order of preference.
        running: with the work that is left of each.
        nodes: what each node has when nothing runs, nodes that the autoscaler may bring included.

    A training that would not fit into the empty cluster is asked for at once, one at a time: asking is what
    makes an autoscaler bring nodes, and its placement group takes nothing while it is incomplete.
    """
    possible = {ask.name: place([ask], nodes) is not None for ask in [*waiting, *running]}
    beyond = [ask for ask in waiting if not possible[ask.name]]
    chosen = beyond[:1] if all(possible[ask.name] for ask in running) else []
    now = [ask for ask in running if possible[ask.name]]
    free = place(now, nodes)
    head: Ask | None = None
    for ask in waiting:
        if free is None:  # one that ran has lost its node: it comes first
            break
        if not possible[ask.name]:
            continue
        left = place([ask], free)
        if left is None:
            head = head or ask
        elif head is None or harmless(ask, head, now, nodes):
            chosen.append(ask)
            now.append(ask)
            free = left
    return chosen


def harmless(ask: Ask, head: Ask, running: Sequence[Ask], nodes: Sequence[Amounts]) -> bool:
    """Whether ``ask`` may overtake ``head``, which waits for some of ``running`` to end."""
    rest = sorted(running, key=lambda one: -one.work)
    wait = 0.0
    while rest and place([*rest, head], nodes) is None:
        wait = rest.pop().work
    return ask.work <= wait or place([*rest, head, ask], nodes) is not None


def place(asks: Sequence[Ask], nodes: Sequence[Amounts]) -> list[Amounts] | None:
    """What is left of ``nodes`` with every bundle of ``asks`` on one of them; None when they do not fit.

    The largest bundles go first, each to the fullest node that still takes it (best fit), which is near to
    how Ray packs placement groups; where Ray packs otherwise, a training waits a little for its room.
    """
    free = [dict(node) for node in nodes]
    bundles = [bundle for ask in asks for bundle in ask.bundles]
    for bundle in sorted(bundles, key=size, reverse=True):
        fitting = [node for node in free if fits(bundle, node)]
        if not fitting:
            return None
        best = min(fitting, key=lambda node: (node.get("GPU", 0.0), node.get("CPU", 0.0)))
        for name, amount in bundle.items():
            best[name] = best.get(name, 0.0) - amount
    return free


def fits(bundle: Amounts, node: Amounts) -> bool:
    """Whether ``node`` has room for ``bundle``."""
    return all(node.get(name, 0.0) + SLACK >= amount for name, amount in bundle.items())


def size(bundle: Amounts) -> tuple[int, float, float]:
    """Sorts bundles: those that ask for something rare, then by GPUs, then by CPUs."""
    return len(bundle), bundle.get("GPU", 0.0), bundle.get("CPU", 0.0)


def with_promise(nodes: Sequence[Amounts], promised: Amounts) -> list[Amounts]:
    """``nodes``, and what the cluster may still grow by as one more node.

    Args:
        nodes: what is there today.
        promised: what the whole cluster may grow to, by resource.
    """
    missing = {
        name: amount - sum(node.get(name, 0.0) for node in nodes)
        for name, amount in promised.items()
        if amount - sum(node.get(name, 0.0) for node in nodes) > SLACK
    }
    return [*map(dict, nodes), *([missing] if missing else [])]
