"""Importance of the fields of a sweep: permutation importance of a random forest, with intervals.

The forest (Breiman 2001) predicts a trial's score from its values. A field's importance is the loss of R²
when its column is permuted, measured on trials that the forest has not seen. Resampling the trials gives the
interval. Trials that were stopped early or failed have no comparable score and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.config import FieldRange, Space
from canopy.metrics import Floats
from canopy.sweep.records import TrialRecord
from canopy.sweep.selection import ranked

MIN_TRIALS = 10
"""Minimum number of complete trials."""
RESAMPLES = 30
TREES = 40
PERMUTATIONS = 5


@dataclass(frozen=True)
class Importance:
    """The importance of one field: loss of R², at most about 1; 0 or less: none is seen."""

    field: str
    """Dotted field."""
    value: float
    """Mean over resamples of the trials."""
    low: float
    """5th percentile."""
    high: float
    """95th percentile."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def importances(space: Space, records: Sequence[TrialRecord], seed: int = 0) -> list[Importance]:
    """The importance of each field, highest first; empty with fewer than :data:`MIN_TRIALS` complete trials.

    Args:
        space: the fields and their values.
        records: all trials.
        seed: seed of resamples, trees and permutations.
    """
    from sklearn.ensemble import RandomForestRegressor

    complete = ranked(records)
    scores_N = np.array([record.score for record in complete], np.float64)
    if len(complete) < MIN_TRIALS or np.ptp(scores_N) == 0:
        return []
    columns = {name: encode(space, name, complete) for name in space}
    features_NF = np.concatenate(list(columns.values()), axis=1)
    rng = np.random.default_rng(seed)
    drops: dict[str, list[float]] = {name: [] for name in space}
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, len(complete), len(complete))
        unseen = np.setdiff1d(np.arange(len(complete)), drawn)
        if len(unseen) < 3 or np.ptp(scores_N[unseen]) == 0:
            continue
        forest = RandomForestRegressor(TREES, random_state=int(rng.integers(1 << 31)), n_jobs=1)
        forest.fit(features_NF[drawn], scores_N[drawn])
        _add_drops(drops, forest, columns, unseen, scores_N, rng)
    found = [
        Importance(name, float(np.mean(own)), *map(float, np.quantile(own, [0.05, 0.95])))
        for name, own in drops.items()
        if own
    ]
    return sorted(found, key=lambda one: -one.value)


def _add_drops(
    drops: dict[str, list[float]],
    forest: Any,
    columns: dict[str, NDArray[np.float64]],
    rows: NDArray[np.intp],
    scores_N: Floats,
    rng: np.random.Generator,
) -> None:
    """Append each field's loss of R² on ``rows`` to ``drops``."""
    whole = {name: block[rows] for name, block in columns.items()}
    sets = [whole]
    for name in columns:
        sets += [{**whole, name: whole[name][rng.permutation(len(rows))]} for _ in range(PERMUTATIONS)]
    # One call for all: a forest takes longer to start than to predict a few rows.
    features_MF = np.concatenate([np.concatenate(list(blocks.values()), axis=1) for blocks in sets])
    predicted_SN = forest.predict(features_MF).reshape(len(sets), len(rows))
    errors_S = ((predicted_SN - scores_N[rows]) ** 2).mean(1) / scores_N[rows].var()
    permuted_FP = errors_S[1:].reshape(len(columns), PERMUTATIONS)
    for name, permuted_P in zip(columns, permuted_FP, strict=True):
        drops[name].append(float(permuted_P.mean() - errors_S[0]))


def encode(space: Space, name: str, records: Sequence[TrialRecord]) -> NDArray[np.float64]:
    """The values of a field as columns, shape (N, F): a number, or one column per choice.

    A field that a trial did not read is at the middle of the other trials' values, in all columns 0 for a
    choice.
    """
    domain = space[name]
    values = [record.values.get(name) for record in records]
    if not isinstance(domain, FieldRange):
        return np.array([[float(value == choice) for choice in domain] for value in values])
    numbers = [log(value) if domain.log else value for value in values if isinstance(value, int | float)]
    middle = float(np.median(numbers)) if numbers else 0.0
    return np.array(
        [
            [(log(value) if domain.log else float(value)) if isinstance(value, int | float) else middle]
            for value in values
        ]
    )
