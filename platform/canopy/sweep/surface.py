"""The response surface over the two most important fields: a Gaussian process over the complete trials.

Rasmussen and Williams 2006, with scikit-learn: a Matérn 5/2 kernel with a length scale per field, plus noise,
which also takes what the other fields do. The deviation is that of the mean score, without the noise of a
single trial.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.config import FieldRange, Space
from canopy.metrics import Floats
from canopy.sweep.importance import MIN_TRIALS, Importance
from canopy.sweep.records import TrialRecord
from canopy.sweep.selection import is_complete

CELLS = 16
"""Number of cells of the surface along each field."""
MAX_TRIALS = 500
"""Largest number of trials that the surface is fitted to: its time grows with their third power."""


@dataclass(frozen=True)
class ResponseSurface:
    """Mean and deviation of the score over two fields, on cells from the low ends of both."""

    x: str
    """The more important field."""
    y: str
    """The other one."""
    x_values: tuple[float, ...]
    """Values at the middles of the cells."""
    y_values: tuple[float, ...]
    """The same of the other field."""
    mean: tuple[tuple[float, ...], ...]
    """Mean score, rows by ``y_values``."""
    deviation: tuple[tuple[float, ...], ...]
    """Standard deviation of the mean score, 0 or more, rows by ``y_values``."""
    noise: float
    """Standard deviation of a single trial around the mean."""
    trials: int
    """Number of trials that it is fitted to."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def response_surface(
    space: Space, records: Sequence[TrialRecord], importance: Sequence[Importance]
) -> ResponseSurface | None:
    """The surface over the two most important ranges; None with fewer, or too few trials that read both.

    Args:
        space: the fields and their values.
        records: all trials.
        importance: the fields, the most important first.
    """
    ranges = {name: domain for name, domain in space.items() if isinstance(domain, FieldRange)}
    fields = [one.field for one in importance if one.field in ranges][:2]
    if len(fields) < 2:
        return None
    complete = [one for one in records if is_complete(one) and all(name in one.values for name in fields)]
    if len(complete) > MAX_TRIALS:
        drawn = np.random.default_rng(0).choice(len(complete), MAX_TRIALS, replace=False)
        complete = [complete[n] for n in sorted(drawn)]
    scores_N = np.array([one.score for one in complete], np.float64)
    if len(complete) < MIN_TRIALS or np.ptp(scores_N) == 0:
        return None
    points_N2 = np.array(
        [[unit(ranges[name], one.values[name]) for name in fields] for one in complete], np.float64
    )
    middles = (np.arange(CELLS) + 0.5) / CELLS
    grid_C2 = np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2)
    mean_C, deviation_C, noise = fit_surface(points_N2, scores_N, grid_C2)
    shape = (CELLS, CELLS)
    return ResponseSurface(
        x=fields[0],
        y=fields[1],
        x_values=tuple(at_share(ranges[fields[0]], share) for share in middles),
        y_values=tuple(at_share(ranges[fields[1]], share) for share in middles),
        mean=_rows(mean_C.reshape(shape)),
        deviation=_rows(deviation_C.reshape(shape)),
        noise=round(noise, 6),
        trials=len(complete),
    )


def fit_surface(
    points_N2: NDArray[np.float64], scores_N: Floats, grid_C2: NDArray[np.float64]
) -> tuple[Floats, Floats, float]:
    """Mean and deviation (C,) of the score at ``grid_C2``, and the deviation of a single trial.

    Args:
        points_N2: places of the trials, each in [0, 1].
        scores_N: their scores.
        grid_C2: places to predict.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    signal = ConstantKernel(1.0, (1e-2, 1e2)) * Matern([0.5, 0.5], (0.1, 10.0), nu=2.5)
    noise = WhiteKernel(0.1, (1e-4, 1e1))
    model = GaussianProcessRegressor(signal + noise, normalize_y=True, n_restarts_optimizer=4, random_state=0)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # a scale at its bound
        model.fit(points_N2, scores_N)
    mean_C, total_C = model.predict(grid_C2, return_std=True)
    single = float(np.sqrt(model.kernel_.k2.noise_level)) * float(scores_N.std())
    return mean_C, np.sqrt(np.maximum(total_C**2 - single**2, 0)), single


def unit(domain: FieldRange, value: Any) -> float:
    """Place of ``value`` in the range, 0 to 1, on its logarithm where the range is logarithmic."""
    if domain.log:
        return log(value / domain.low) / log(domain.high / domain.low)
    return float((value - domain.low) / (domain.high - domain.low))


def at_share(domain: FieldRange, share: float) -> float:
    """The value at the place ``share``: the inverse of :func:`unit`."""
    if domain.log:
        return float(domain.low * exp(share * log(domain.high / domain.low)))
    return float(domain.low + share * (domain.high - domain.low))


def _rows(values_YX: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(float(value), 6) for value in row) for row in values_YX)


def surfaces_json(found: Mapping[str, ResponseSurface | None]) -> dict[str, Any]:
    """The content of ``surface.json``: swept variant -> its surface; variants without one are left out."""
    return {name: one.to_json() for name, one in found.items() if one is not None}
