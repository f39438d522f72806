"""Table rows with every figure of every model, for the page and for the terminal.

Figures of decisions are listed twice: at tuned thresholds, and with every threshold at 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from canopy.report.axes import finite_values

DECIDED = {
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "samples_f1": "F1 per image",
    "samples_f2": "F2 per image",
}
"""Figures of decisions: key in ``summary.json`` -> title."""
RANKED = {
    "map": ("mAP", 3),
    "ranking_loss": ("Ranking loss", 4),
    "coverage_error": ("Coverage", 2),
    "calibration_error": ("Calibration error", 4),
}
"""Figures of the probabilities alone: key in ``summary.json`` -> title and number of decimals."""

Scored = Sequence[tuple[str, str, Mapping[str, Any]]]
"""(role, name, scores) of every model."""


@dataclass(frozen=True)
class Score:
    """A score and its interval; None where unknown."""

    value: Any
    interval: Sequence[float] | None


@dataclass(frozen=True)
class Row:
    """One model.

    Args:
        role: ``ensemble``, ``best`` (member), ``member`` or ``ceiling``.
        name: name of the model.
        decided: one pair (tuned, at 0.5) per figure of :data:`DECIDED`.
        ranked: one text per figure of :data:`RANKED`.
    """

    role: str
    name: str
    decided: list[tuple[Score, Score]]
    ranked: list[str]


def score_rows(scored: Scored) -> list[Row]:
    """One row per model, in the given order; a dash for figures that an older summary lacks."""
    return [
        Row(
            role,
            name,
            [(score_of(scores, key), score_of(scores.get("at_half") or {}, key)) for key in DECIDED],
            [rounded(scores.get(key), digits) for key, (_, digits) in RANKED.items()],
        )
        for role, name, scores in scored
    ]


def score_of(scores: Mapping[str, Any], key: str) -> Score:
    """One score of a score card with its interval."""
    return Score(scores.get(key), (scores.get("intervals") or {}).get(key))


def rounded(value: Any, digits: int) -> str:
    """A number with ``digits`` decimals; a dash where unknown."""
    return f"{float(value):.{digits}f}" if finite_values([value]) else "–"


def f1_by_label(scored: Scored, labels: Sequence[str]) -> list[tuple[str, list[tuple[Any, Any]]]]:
    """One row per label: its name, and F1 (tuned, at 0.5) of each model; None where unknown."""

    def of(scores: Mapping[str, Any], label: str) -> Any:
        return (scores.get("per_class_f1") or {}).get(label)

    return [
        (label, [(of(scores, label), of(scores.get("at_half") or {}, label)) for _, _, scores in scored])
        for label in labels
    ]
