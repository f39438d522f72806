"""Fitting on more rows than memory holds: shard by shard, as Ray tasks or in turn, with the same result.

A shard is one file per member, all with the same rows. Three passes over files, each a ``map``:
the rows of the search sample (those with the lowest hashes, wherever they lie) are picked from every
shard; the winner combines every shard; and the exact thresholds are found class by class. What is in
memory at once: one shard per task, the sample, and the ensemble's own probabilities (1/M of the input).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.config import EnsembleConfig
from canopy.ensemble.fit import REFIT, find_winner, finish, fit_ensemble
from canopy.ensemble.model import Ensemble
from canopy.ensemble.search_sample import data_hash
from canopy.errors import PredictionsError
from canopy.predictions.hashed_ids import sample_of
from canopy.predictions.io import read_predictions
from canopy.predictions.predictions import Predictions, align, concatenate, refuse_shared_rows

Shard = Mapping[str, str]
"""Member name -> file."""
Spread = Callable[..., Iterable[Any]]
"""Works as ``map`` does: a function, then its arguments, each an iterable."""


@dataclass(frozen=True, eq=False)
class Picked:
    """What the driver keeps of one shard."""

    members: dict[str, Predictions]
    rows: int
    hash: str


def shards_of(files: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Shard i holds the i-th file of each member.

    Raises:
        PredictionsError: when members have different numbers of files.
    """
    counts = {name: len(paths) for name, paths in files.items()}
    if len(set(counts.values())) != 1:
        remedy = "Cut every member's predictions into the same shards, in the same order."
        raise PredictionsError("The members", "must have equally many shards", counts, remedy)
    return [{name: paths[i] for name, paths in files.items()} for i in range(next(iter(counts.values()), 0))]


def fit_sharded(
    shards: Sequence[Shard],
    config: EnsembleConfig,
    spread: Spread = map,
    barred: NDArray[np.str_] | None = None,
) -> Ensemble:
    """As :func:`~canopy.ensemble.fit.fit_ensemble` on all shards together, to the last bit.

    Args:
        shards: one file per member each, with targets; every row in one shard only.
        config: what to aim at, and what to choose from.
        spread: how to map over shards and classes: ``map``, or :func:`ray_map`.
        barred: ids that no shard may hold: those of the test split.

    Raises:
        PredictionsError: when shards or members do not fit together, naming the first difference.
    """
    if not shards:
        raise PredictionsError("The ensemble", "needs at least one shard", 0, "Name a predictions file.")
    most = REFIT * config.search_rows
    sample: dict[str, Predictions] = {}
    rows, total = 0, 0
    same = [[argument] * len(shards) for argument in (most, config.seed, barred)]
    for picked in spread(pick, shards, *same):
        sample = _merged(sample, picked.members, most, config.seed)
        rows, total = rows + picked.rows, (total + int(picked.hash, 16)) % 2**64
    if rows <= most:
        return fit_ensemble(sample, config, spread)
    sample = align(sample)
    winner = find_winner(sample, config)
    parts = list(spread(combine, shards, [winner.ensemble] * len(shards)))
    labels = winner.ensemble.labels
    whole = concatenate([Predictions(ids, probs, labels, targets_NK=y) for ids, probs, y in parts])
    whole = align({"ensemble": whole})["ensemble"]  # in the order of ids, as all rows at once would be
    assert whole.targets_NK is not None
    return finish(winner, whole.probs_NK, whole.targets_NK, f"{total:016x}", config, spread)


def pick(shard: Shard, most: int, seed: int, barred: NDArray[np.str_] | None = None) -> Picked:
    """The shard's candidates for the sample: its ``most`` rows with the lowest hashes; refuses ``barred``."""
    members = _read(shard)
    first = next(iter(members.values()))
    if barred is not None:
        refuse_shared_rows(first.ids, barred)
    chosen = sample_of(first.ids, most, seed)
    return Picked({name: p.rows(chosen) for name, p in members.items()}, len(first), data_hash(members))


def combine(
    shard: Shard, ensemble: Ensemble
) -> tuple[NDArray[np.str_], NDArray[np.float32], NDArray[np.uint8]]:
    """The shard's ids, the ensemble's probabilities (n, K) and the targets (n, K)."""
    members = _read(shard)
    first = next(iter(members.values()))
    assert first.targets_NK is not None
    return first.ids, ensemble.probabilities({n: p.probs_NK for n, p in members.items()}), first.targets_NK


def ray_map(function: Callable[..., Any], *arguments: Iterable[Any]) -> Iterator[Any]:
    """``map`` as Ray tasks of one CPU each, answers in order, at most twice as many under way as CPUs.

    Connects to the cluster that the job runs in (``ray.init()`` must have been called).
    """
    import ray

    task = ray.remote(num_cpus=1)(function)
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    limit = max(2, 2 * int(total.get("CPU", 1)))
    waiting: list[Any] = []
    for given in zip(*arguments, strict=False):
        waiting.append(task.remote(*given))
        if len(waiting) >= limit:
            yield ray.get(waiting.pop(0))
    for reference in waiting:
        yield ray.get(reference)


def _read(shard: Shard) -> dict[str, Predictions]:
    try:
        members = align({name: read_predictions(path) for name, path in shard.items()})
    except PredictionsError as error:
        thing = f"The shard of {', '.join(shard.values())}: {error.thing}"
        raise PredictionsError(thing, error.constraint, error.got, error.remedy) from error
    name, first = next(iter(members.items()))
    if first.targets_NK is None:
        problem, remedy = "must hold targets in at least one member's file", "Add the truth."
        raise PredictionsError(f"The shard of {shard[name]}", problem, "none", remedy)
    return members


def _merged(
    sample: Mapping[str, Predictions], more: Mapping[str, Predictions], most: int, seed: int
) -> dict[str, Predictions]:
    """The ``most`` rows with the lowest hashes of both."""
    if not sample:
        return dict(more)
    if set(sample) != set(more):
        odd = sorted(set(sample) ^ set(more))[0]
        remedy = "Give a file for it in every shard."
        raise PredictionsError(f"Member {odd!r}", "must be in every shard", "missing in one", remedy)
    both = {name: concatenate([sample[name], more[name]]) for name in sample}
    chosen = sample_of(next(iter(both.values())).ids, most, seed)
    return {name: p.rows(chosen) for name, p in both.items()}
