"""Out-of-core fitting: the ensemble is fitted shard by shard, with the same result as in memory.

A shard is one file per member, all with the same rows. The files are read twice, each time by a ``map`` over
shards: first to pick the rows of the search sample (those with the lowest hashes), then to predict every
shard with the chosen ensemble. A ``map`` over classes then finds the exact thresholds. Memory holds one shard
per task, the sample, and the ensemble's own probabilities (1/M of the input).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.config import EnsembleConfig
from canopy.ensemble.fit import REFIT_FACTOR, finish_ensemble, fit_ensemble, search_and_refit
from canopy.ensemble.model import Ensemble
from canopy.ensemble.search_inputs import ADD_TARGETS, data_hash
from canopy.errors import PredictionsError
from canopy.predictions.hash_sampling import sample_of
from canopy.predictions.io import read_predictions
from canopy.predictions.predictions import Predictions, align, concatenate, refuse_shared_rows
from canopy.runtime.logging import configure_logging, current_context, remote_log_context
from canopy.runtime.task_names import task_name

Shard = Mapping[str, str]
"""Member name -> file."""
MapFunction = Callable[..., Iterable[Any]]
"""A function with the interface of ``map``: a function, then its arguments, each an iterable."""


@dataclass(frozen=True, eq=False)
class ShardSample:
    """The rows that the driver keeps of one shard.

    Args:
        members: the shard's candidates for the sample, by member.
        rows: number of all rows of the shard.
        hash: hash of all its rows.
    """

    members: dict[str, Predictions]
    rows: int
    hash: str


@dataclass(frozen=True, eq=False)
class ShardPredictions:
    """The ensemble's probabilities (n, K) of one shard, with its ids and targets (n, K)."""

    ids: NDArray[np.str_]
    probs_NK: NDArray[np.float32]
    targets_NK: NDArray[np.uint8]


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
    map_shards: MapFunction = map,
    excluded_ids: NDArray[np.str_] | None = None,
) -> Ensemble:
    """The result of :func:`~canopy.ensemble.fit.fit_ensemble` on all shards together, to the last bit.

    Args:
        shards: one file per member each, with targets; every row is in one shard only.
        config: objective, and the methods to choose from.
        map_shards: how to map over shards and classes: ``map``, or :func:`ray_map`.
        excluded_ids: ids that no shard may hold: those of the test split.

    Raises:
        PredictionsError: when shards or members do not fit together, naming the first difference.
    """
    if not shards:
        raise PredictionsError("The ensemble", "needs at least one shard", 0, "Name a predictions file.")
    max_rows = REFIT_FACTOR * config.search_rows
    sample: dict[str, Predictions] = {}
    rows, total = 0, 0
    constants = [[argument] * len(shards) for argument in (max_rows, config.seed, excluded_ids)]
    for shard, picked in zip(shards, map_shards(sample_shard, shards, *constants), strict=True):
        sample = _merged(sample, picked.members, shard, max_rows, config.seed)
        rows, total = rows + picked.rows, (total + int(picked.hash, 16)) % 2**64
    if rows <= max_rows:
        return fit_ensemble(sample, config, map_shards)
    refitted = search_and_refit(align(sample), config)
    labels = refitted.ensemble.labels
    parts = map_shards(predict_shard, shards, [refitted.ensemble] * len(shards))
    whole = concatenate(
        [Predictions(p.ids, p.probs_NK, labels, targets_NK=p.targets_NK) for p in parts],
        [", ".join(shard.values()) for shard in shards],
    )
    whole = align({"ensemble": whole})["ensemble"]  # sorted by id, as fit_ensemble sorts all rows
    assert whole.targets_NK is not None
    return finish_ensemble(refitted, whole.probs_NK, whole.targets_NK, f"{total:016x}", config, map_shards)


def sample_shard(
    shard: Shard, max_rows: int, seed: int, excluded_ids: NDArray[np.str_] | None = None
) -> ShardSample:
    """The shard's candidates for the sample: its ``max_rows`` rows with the lowest hashes.

    Raises:
        PredictionsError: when the shard's files do not fit together or hold one of ``excluded_ids``.
    """
    members = _read(shard)
    first = next(iter(members.values()))
    if excluded_ids is not None:
        refuse_shared_rows(first.ids, excluded_ids)
    chosen = sample_of(first.ids, max_rows, seed)
    return ShardSample({name: p.rows(chosen) for name, p in members.items()}, len(first), data_hash(members))


def predict_shard(shard: Shard, ensemble: Ensemble) -> ShardPredictions:
    """The ensemble's probabilities of a shard.

    Raises:
        PredictionsError: when the shard's files do not fit together.
    """
    members = _read(shard)
    first = next(iter(members.values()))
    assert first.targets_NK is not None
    probs_NK = ensemble.probabilities({name: p.probs_NK for name, p in members.items()})
    return ShardPredictions(first.ids, probs_NK, first.targets_NK)


def ray_map(function: Callable[..., Any], *arguments: Iterable[Any]) -> Iterator[Any]:
    """``map`` as Ray tasks of one CPU each: results in order, at most twice as many in flight as CPUs.

    ``ray.init()`` must have been called.
    """
    import ray

    task = ray.remote(num_cpus=1)(_logged).options(name=task_name(getattr(function, "__name__", "shard")))
    fields = current_context()
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    max_in_flight = max(2, 2 * int(total.get("CPU", 1)))
    waiting: list[Any] = []
    for given in zip(*arguments, strict=False):
        waiting.append(task.remote(function, fields, *given))
        if len(waiting) >= max_in_flight:
            yield ray.get(waiting.pop(0))
    for reference in waiting:
        yield ray.get(reference)


def _logged(function: Callable[..., Any], fields: Mapping[str, str], *arguments: Any) -> Any:
    """Call ``function`` in a Ray task, with the log context of the driver."""
    configure_logging("worker")
    with remote_log_context(fields):
        return function(*arguments)


def _read(shard: Shard) -> dict[str, Predictions]:
    """The aligned members of a shard, with targets."""
    try:
        members = align({name: read_predictions(path) for name, path in shard.items()})
    except PredictionsError as error:
        thing = f"The shard of {', '.join(shard.values())}: {error.thing}"
        raise PredictionsError(thing, error.constraint, error.got, error.remedy) from error
    name, first = next(iter(members.items()))
    if first.targets_NK is None:
        must = "must hold targets in at least one member's file"
        raise PredictionsError(f"The shard of {shard[name]}", must, "none", ADD_TARGETS)
    return members


def _merged(
    sample: Mapping[str, Predictions], more: Mapping[str, Predictions], shard: Shard, max_rows: int, seed: int
) -> dict[str, Predictions]:
    """The ``max_rows`` rows with the lowest hashes of both; ``more`` are those of ``shard``."""
    if not sample:
        return dict(more)
    if set(sample) != set(more):
        odd = sorted(set(sample) ^ set(more))[0]
        remedy = "Give a file for it in every shard."
        raise PredictionsError(f"Member {odd!r}", "must be in every shard", "missing in one", remedy)
    both = {
        name: concatenate([sample[name], more[name]], [f"earlier shards of {name}", shard[name]])
        for name in sample
    }
    chosen = sample_of(next(iter(both.values())).ids, max_rows, seed)
    return {name: p.rows(chosen) for name, p in both.items()}
