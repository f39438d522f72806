"""The fixed sequence of points of the sampler ``halton``: gamma and alpha of the focal loss."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import qmc

from canopy.config import SweepConfig


@dataclass(frozen=True)
class FocalParameters:
    """A point of the search space."""

    gamma: float
    """Focusing exponent, 0 or more."""
    alpha: float
    """Weight of positives, 0 to 1; negatives get 1 - alpha."""

    @property
    def values(self) -> dict[str, float]:
        """The values of the fields of a variant."""
        return {"loss.gamma": self.gamma, "loss.alpha": self.alpha}


ANCHORS = (FocalParameters(gamma=0.0, alpha=0.5), FocalParameters(gamma=2.0, alpha=0.25))
"""Points that are tried first: balanced BCE, and the values of the focal loss's paper (Lin et al. 2017)."""


def sample_points(settings: SweepConfig) -> list[FocalParameters]:
    """One point per trial: the anchors within the ranges, then a scrambled Halton sequence (Owen 2017).

    The result depends on the ranges, the seed and the number of trials only.
    """
    points = [anchor for anchor in ANCHORS if is_in_range(anchor, settings)][: settings.trials]
    missing = settings.trials - len(points)
    unit_N2 = qmc.Halton(2, rng=settings.seed).random(missing) if missing else []
    (gamma_low, gamma_high), (alpha_low, alpha_high) = settings.gamma, settings.alpha
    for u, v in unit_N2:
        gamma = float(gamma_low + (gamma_high - gamma_low) * u)
        alpha = float(alpha_low + (alpha_high - alpha_low) * v)
        points.append(FocalParameters(gamma, alpha))
    return points


def is_in_range(point: FocalParameters, settings: SweepConfig) -> bool:
    """Whether ``point`` lies within the ranges of ``settings``, ends included."""
    (gamma_low, gamma_high), (alpha_low, alpha_high) = settings.gamma, settings.alpha
    return gamma_low <= point.gamma <= gamma_high and alpha_low <= point.alpha <= alpha_high
