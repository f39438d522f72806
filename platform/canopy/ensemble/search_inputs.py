"""Preparation of the search: checked targets, distinct members, the sampled rows and their folds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.config import EnsembleConfig
from canopy.ensemble.crossfit import Sample
from canopy.ensemble.objective import costs_of
from canopy.errors import PredictionsError
from canopy.labels import LabelSet
from canopy.predictions.hash_sampling import folds_of, hash_ids, sample_of
from canopy.predictions.predictions import Predictions

ROWS_PER_FOLD = 4
"""Minimum number of fitting rows per fold of the cross-fitting."""
MIN_FOLDS = 4
"""Minimum of ``ensemble.folds``."""
ADD_TARGETS = "Add columns target:LABEL (0 or 1) to one CSV, or an array targets to one npz or Parquet file."


def exclusive_groups(config: EnsembleConfig, labels: LabelSet) -> tuple[tuple[int, ...], ...]:
    """Columns of each exclusive group.

    Raises:
        DataError: when a group names an unknown label.
        PredictionsError: when a group holds fewer than two labels, or a label is in two groups.
    """
    groups = [[name.strip() for name in group.split(",") if name.strip()] for group in config.exclusive]
    flat = [name for group in groups for name in group]
    for group in groups:
        twice = next((name for name in group if flat.count(name) > 1), None)
        if len(group) < 2 or twice:
            problem = "must hold two or more labels, each in one group only"
            raise PredictionsError("ensemble.exclusive", problem, ",".join(group), "Correct the group.")
    return tuple(tuple(labels.index(name, "ensemble.exclusive") for name in group) for group in groups)


def fewest_rows(folds: int) -> int:
    """Lowest number of fitting rows for cross-fitting in ``folds`` folds."""
    return ROWS_PER_FOLD * folds


def targets_of(aligned: Mapping[str, Predictions], config: EnsembleConfig) -> NDArray[np.uint8]:
    """The targets of aligned members, shape (N, K).

    Raises:
        PredictionsError: when no member has targets, or there are too few rows for the folds.
    """
    targets_NK = next(iter(aligned.values())).targets_NK
    if targets_NK is None:
        got = f"none in {', '.join(aligned)}"
        raise PredictionsError("The fitting data", "must hold targets", got, ADD_TARGETS)
    fewest = fewest_rows(config.folds)
    if len(targets_NK) < fewest:
        enough = len(targets_NK) // ROWS_PER_FOLD
        remedy = f"Fit on {fewest} rows or more."
        if enough >= MIN_FOLDS:
            remedy = f"Fit on {fewest} rows or more, or set ensemble.folds to {enough}."
        elif config.folds > MIN_FOLDS:
            least = fewest_rows(MIN_FOLDS)
            remedy = f"Fit on {fewest} rows or more, or on {least} with ensemble.folds {MIN_FOLDS}."
        must = f"must hold at least {fewest} rows for {config.folds} folds"
        raise PredictionsError("The fitting data", must, len(targets_NK), remedy)
    return targets_NK


def drop_duplicates(
    aligned: Mapping[str, Predictions],
) -> tuple[dict[str, Predictions], dict[str, str]]:
    """Members with distinct probabilities, and the reason for each member dropped.

    Among members with identical probabilities, the first by name is kept.
    """
    kept: dict[str, Predictions] = {}
    left_out = {}
    by_sum: dict[float, list[str]] = {}
    for name, member in aligned.items():
        alike = by_sum.setdefault(float(member.probs_NK.sum(dtype=np.float64)), [])
        twin = next((n for n in alike if np.array_equal(aligned[n].probs_NK, member.probs_NK)), None)
        if twin is None:
            alike.append(name)
            kept[name] = member
        else:
            left_out[name] = f"the same as {twin}"
    return kept, left_out


def sample_rows(
    kept: Mapping[str, Predictions],
    targets_NK: NDArray[np.uint8],
    config: EnsembleConfig,
    max_rows: int,
) -> Sample:
    """The ``max_rows`` rows with the lowest hash of their id, with the fold of each.

    Args:
        kept: aligned, distinct members.
        targets_NK: targets of all rows.
        config: folds, seed, exclusive groups and costs.
        max_rows: maximum number of rows in the sample.

    Raises:
        PredictionsError: when an exclusive group is invalid.
        DataError: when a group or a cost names an unknown label.
    """
    ids_N, labels = next(iter(kept.values())).ids, next(iter(kept.values())).labels
    rows = sample_of(ids_N, max_rows, config.seed)
    return Sample(
        rows=rows,
        members_MNK=np.stack([member.probs_NK[rows] for member in kept.values()]),
        targets_NK=targets_NK[rows],
        ids_N=ids_N[rows],
        fold_N=folds_of(ids_N[rows], targets_NK[rows], config.folds, config.seed),
        folds=config.folds,
        groups=exclusive_groups(config, labels),
        costs_K2=costs_of(config, labels),
    )


def data_hash(aligned: Mapping[str, Predictions]) -> str:
    """16 hex digits over every row's id, targets and probabilities.

    The order of rows does not matter, and the hashes of shards add up modulo 2**64.
    """
    first = next(iter(aligned.values()))
    state_N = hash_ids(first.ids)
    columns: list[NDArray[Any]] = [member.probs_NK.view(np.uint32).T for member in aligned.values()]
    columns += [] if first.targets_NK is None else [first.targets_NK.T]
    with np.errstate(over="ignore"):
        for column_KN in columns:
            for column_N in column_KN:
                state_N = (state_N ^ column_N) * np.uint64(0x100000001B3)
                state_N ^= state_N >> np.uint64(29)
        return f"{int(state_N.sum(dtype=np.uint64)):016x}"
