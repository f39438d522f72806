"""From members to the sample that the search looks at: what is distinct, and where rows fall."""

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
from canopy.predictions.hashed_ids import folds_of, hash_ids, sample_of
from canopy.predictions.predictions import Predictions


def exclusive_groups(config: EnsembleConfig, labels: LabelSet) -> tuple[tuple[int, ...], ...]:
    """Columns of each exclusive group.

    Raises:
        DataError: when a group names an unknown label.
        PredictionsError: when a group holds fewer than two labels, or a label stands in two groups.
    """
    groups = [[name.strip() for name in group.split(",") if name.strip()] for group in config.exclusive]
    flat = [name for group in groups for name in group]
    for group in groups:
        twice = next((name for name in group if flat.count(name) > 1), None)
        if len(group) < 2 or twice:
            problem = "must hold two or more labels, each in one group only"
            raise PredictionsError("ensemble.exclusive", problem, ",".join(group), "Correct the group.")
    return tuple(tuple(labels.index(name) for name in group) for group in groups)


def fewest_rows(folds: int) -> int:
    """Lowest number of fitting rows for cross-fitting in ``folds`` folds."""
    return 4 * folds


def targets_of(aligned: Mapping[str, Predictions], config: EnsembleConfig) -> NDArray[np.uint8]:
    """The truth, shape (N, K).

    Raises:
        PredictionsError: when no member has it, or there are too few rows for the folds.
    """
    targets_NK = next(iter(aligned.values())).targets_NK
    if targets_NK is None:
        names = ", ".join(aligned)
        raise PredictionsError("The fitting data", "must hold targets", f"none in {names}", "Add the truth.")
    fewest = fewest_rows(config.folds)
    if len(targets_NK) < fewest:
        remedy = "Fit on more rows, or lower ensemble.folds."
        raise PredictionsError(
            "The fitting data", f"must hold at least {fewest} rows", len(targets_NK), remedy
        )
    return targets_NK


def distinct(aligned: Mapping[str, Predictions]) -> tuple[dict[str, Predictions], dict[str, str]]:
    """Members that say the same everywhere, collapsed onto the first of them by name."""
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
    most: int,
) -> Sample:
    """The ``most`` rows with the lowest hash of their id, and the fold of each."""
    ids_N, labels = next(iter(kept.values())).ids, next(iter(kept.values())).labels
    rows = sample_of(ids_N, most, config.seed)
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
    """16 hex digits over every row's id, targets and probabilities; rows in any order, shards add up."""
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
