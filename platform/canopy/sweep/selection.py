"""Selection of the best trials, and the judgement of the finalists against the untouched default.

The judgement asks two questions, and a finalist must pass both: is its gain larger than the noise between
seeds, and larger than the noise between rows. The level is shared among the finalists (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from canopy.config import FieldValues
from canopy.metrics import Floats
from canopy.sweep.records import TrialRecord

LEVEL = 0.05
"""Probability that a default is replaced although no finalist is better."""


def ranked(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The complete trials, best first; of equal ones the earlier first.

    Trials that were stopped early do not compete: their scores come from fewer epochs. Without any complete
    trial, those with the most epochs compete.
    """
    scored = [record for record in records if record.score is not None]
    complete = [record for record in scored if is_complete(record)]
    if not complete:
        most = max((record.epochs for record in scored), default=0)
        complete = [record for record in scored if record.epochs == most]
    return sorted(complete, key=lambda record: -(record.score or 0.0))


def is_complete(record: TrialRecord) -> bool:
    """Whether a trial ran to its end."""
    return record.score is not None and not record.stopped_early


def finalists(
    records: Sequence[TrialRecord], default: FieldValues | None, count: int
) -> list[dict[str, Any]]:
    """The points of the ``count`` best trials, without the default and without repetitions.

    Args:
        records: all trials.
        default: the variant's own point; None where it lies outside the space.
        count: maximum number of finalists.
    """
    points: list[dict[str, Any]] = []
    for record in ranked(records):
        point = dict(record.values)
        if point != default and point not in points:
            points.append(point)
    return points[:count]


@dataclass(frozen=True)
class Finalist:
    """A finalist's runs beside those of the default."""

    values: dict[str, Any]
    """Its point; the default's is empty."""
    scores: tuple[float, ...]
    """Objective of each seed; empty when a run failed."""
    gain: float | None = None
    """Mean over seeds of its objective minus the default's; None for the default and for failed runs."""
    seed_margin: float | None = None
    """Gain that noise between seeds reaches with the probability :data:`LEVEL`, shared among finalists."""
    row_low: float | None = None
    """Lower limit of the gain over resampled rows."""
    error: str | None = None
    """Why a run failed; None otherwise."""

    @property
    def is_better(self) -> bool:
        """Whether the gain is larger than both kinds of noise."""
        if self.gain is None or self.seed_margin is None or self.row_low is None:
            return False
        return self.gain > self.seed_margin and self.row_low > 0

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {**asdict(self), "scores": list(self.scores), "is_better": self.is_better}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Finalist:
        """Undo :meth:`to_json`."""
        known = {name: value for name, value in content.items() if name != "is_better"}
        return cls(**{**known, "scores": tuple(content["scores"])})


@dataclass(frozen=True)
class Gains:
    """Gains of C candidates over the default: mean over seeds, noise between seeds, limit over rows."""

    gain_C: Floats
    seed_margin: float
    row_low_C: Floats


def judge(scores_CS: NDArray[Any], resampled_CB: NDArray[Any], level: float = LEVEL) -> Gains:
    """Compare candidates with the default, which is the first.

    Seeds: scores are modelled as candidate + seed + noise: a seed gives every candidate the same batches and,
    for equal shapes, the same initial weights. The noise is estimated from the residuals of all
    candidates together; a gain is compared with the one-sided quantile of Student's t. Rows: the lower
    percentile of the paired bootstrap.

    Args:
        scores_CS: objective of each candidate and seed, the default first; two or more of both.
        resampled_CB: mean over seeds of each candidate's objective on resampled rows.
        level: probability of a false winner, shared among the candidates.
    """
    candidates, seeds = scores_CS.shape
    assert candidates >= 2, "no finalist"
    assert seeds >= 2, "the noise between seeds needs two seeds"
    share = level / (candidates - 1)
    means_C = scores_CS.mean(1)
    residuals_CS = scores_CS - means_C[:, None] - scores_CS.mean(0) + scores_CS.mean()
    freedom = (candidates - 1) * (seeds - 1)
    variance = (residuals_CS**2).sum() / freedom
    margin = float(student.ppf(1 - share, freedom) * np.sqrt(2 * variance / seeds))
    differences_CB = resampled_CB[1:] - resampled_CB[0]
    return Gains(means_C[1:] - means_C[0], margin, np.nanquantile(differences_CB, share, axis=1))


def verdict(
    points: Sequence[FieldValues],
    scores: Sequence[Sequence[float]],
    resampled_CB: NDArray[Any],
    errors: Sequence[str | None],
) -> list[Finalist]:
    """The judged candidates, the default first, in the order of ``points``.

    Args:
        points: point of each candidate, that of the default first and empty.
        scores: objective of each candidate's seeds; empty where a run failed.
        resampled_CB: mean over seeds of the objective on resampled rows; NaN where a run failed.
        errors: why a candidate failed; None otherwise. The default must not have failed.
    """
    assert errors[0] is None, "nothing to compare with"
    whole = [n for n, error in enumerate(errors) if error is None]
    found = [
        Finalist(dict(point), tuple(map(float, own)), error=error)
        for point, own, error in zip(points, scores, errors, strict=True)
    ]
    if len(whole) < 2:
        return found
    gains = judge(np.array([scores[n] for n in whole]), resampled_CB[whole])
    for place, n in enumerate(whole[1:]):
        found[n] = Finalist(
            found[n].values,
            found[n].scores,
            gain=float(gains.gain_C[place]),
            seed_margin=gains.seed_margin,
            row_low=float(gains.row_low_C[place]),
        )
    return found


def winner(judged: Sequence[Finalist]) -> Finalist:
    """The finalist with the highest gain among those that are better than the default, else the default."""
    better = [one for one in judged[1:] if one.is_better]
    return max(better, key=lambda one: one.gain or 0.0, default=judged[0])
