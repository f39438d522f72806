"""Selection of the best trial, and the record of the sweep's result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Self

from canopy.sweep.trials import TrialRecord


@dataclass(frozen=True)
class SweepResult:
    """The best trial's focal parameters, as in ``best.json``."""

    gamma: float
    """Focusing exponent, 0 or more."""
    alpha: float
    """Weight of positives, 0 to 1; negatives get 1 - alpha."""
    score: float
    """Validation score of the trial, 0 to 1."""

    def to_json(self) -> dict[str, float]:
        """The content of ``best.json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Read the content of ``best.json``.

        Raises:
            ValueError: when a number is missing, not finite or out of range.
        """
        if not isinstance(content, dict):
            raise ValueError("no object with gamma, alpha and score")
        values = [content.get(name) for name in ("gamma", "alpha", "score")]
        if not all(isinstance(value, int | float) and isfinite(value) for value in values):
            raise ValueError(f"gamma, alpha and score are {values}")
        result = cls(**{name: content[name] for name in ("gamma", "alpha", "score")})
        if result.gamma < 0 or not 0 <= result.alpha <= 1:
            raise ValueError(f"gamma {result.gamma} or alpha {result.alpha} is out of range")
        return result


def select_best(records: Sequence[TrialRecord]) -> SweepResult | None:
    """The trial with the highest score among those with the most epochs; None when all failed.

    Trials that were stopped early do not compete: their scores come from fewer epochs.
    """
    scored = [(record.epochs, record.score, record) for record in records if record.score is not None]
    if not scored:
        return None
    _, score, best = max(scored, key=lambda entry: entry[:2])
    return SweepResult(best.gamma, best.alpha, score)
