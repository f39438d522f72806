"""Dataclasses of ensemble scores: score card, lead over the best single member, F1 after each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from canopy import metrics
from canopy.config import CombinationKind, EnsembleConfig
from canopy.ensemble.combination import COMBINATION_KINDS
from canopy.labels import LabelSet
from canopy.metrics.bootstrap import Interval, paired_differences
from canopy.metrics.score_card import ScoreCard, by_label, decision_scores, score_card
from canopy.storage.json_fields import JsonField

COMPARED = {"macro_f1": metrics.macro_f1, "micro_f1": metrics.micro_f1}
"""The figures that are compared with the best single member's."""
STEPS = ("single_half", "single_tuned", "ensemble_half", "ensemble")
OVER = "over_"
"""Prefix of the comparisons' keys in JSON."""


@dataclass(frozen=True, eq=False)
class StepDecisions:
    """Decisions (N, K) after each step of the ensemble.

    Args:
        single_half: the best single member's raw probabilities at 0.5.
        single_tuned: the same member, calibrated and with tuned thresholds.
        ensemble_half: the ensemble's probabilities at 0.5.
        ensemble: the ensemble at its thresholds.
    """

    single_half: NDArray[np.uint8]
    single_tuned: NDArray[np.uint8]
    ensemble_half: NDArray[np.uint8]
    ensemble: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class EnsembleScores(ScoreCard):
    """The score card of an ensemble.

    Args:
        over: baseline -> figure -> the ensemble's figure minus the baseline's, with its 95% interval. The
            baselines are ``best_single`` where the card is cross-fitted; ``single_tuned`` and ``single_half``
            (the best single member, tuned and at 0.5) where it is measured.
        steps: step of :class:`StepDecisions` -> label -> F1; None where a label has no positives.
        chosen: cross-fitted card only: how many outer folds chose each combination.
    """

    over: Mapping[str, Mapping[str, Interval]]
    steps: Mapping[str, Mapping[str, float | None]]
    chosen: Mapping[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON form: the card's keys, ``over_<baseline>``, ``steps`` and, where known, ``chosen``."""
        content = super().to_json()
        for baseline, by_figure in self.over.items():
            content[OVER + baseline] = {name: gain.to_json() for name, gain in by_figure.items()}
        content["steps"] = {step: dict(by_label) for step, by_label in self.steps.items()}
        return content if self.chosen is None else {**content, "chosen": dict(self.chosen)}

    @classmethod
    def from_json(cls, field: JsonField, labels: Sequence[str]) -> Self:
        """Read what :meth:`to_json` wrote for these labels.

        Raises:
            InputError: of the field's class, naming the field that is missing or out of range.
        """
        card = ScoreCard.from_json(field, labels)
        baselines = [key for key in field.mapping() if key.startswith(OVER)]
        steps, chosen = field.get("steps"), field.optional("chosen")
        return cls(
            **vars(card),
            over={key.removeprefix(OVER): _gains_in(field.get(key)) for key in baselines},
            steps={
                step: {
                    name: f.number_or_none(0, 1)
                    for name, f in zip(labels, by_name.keyed(labels), strict=True)
                }
                for step, by_name in zip(STEPS, steps.keyed(STEPS), strict=True)
            },
            chosen=None if chosen is None else _chosen_in(chosen),
        )


@dataclass(frozen=True)
class CandidateScore:
    """Cross-fitted figures of one candidate combination.

    Args:
        combination: the candidate.
        objective: value of the configured objective.
        over_best_single: its objective minus the best single member's, with the 95% interval.
        relative_log_loss: log loss, each class's divided by that of its base rate, mean over classes.
        taken: whether this candidate was chosen.
    """

    combination: CombinationKind
    objective: float
    over_best_single: Interval
    relative_log_loss: float
    taken: bool

    def to_json(self) -> dict[str, Any]:
        """The JSON form, with the field names as keys."""
        return {
            "combination": self.combination,
            "objective": self.objective,
            "over_best_single": self.over_best_single.to_json(),
            "relative_log_loss": self.relative_log_loss,
            "taken": self.taken,
        }

    @classmethod
    def from_json(cls, field: JsonField) -> CandidateScore:
        """Read what :meth:`to_json` wrote."""
        kind = field.get("combination").choice(COMBINATION_KINDS)
        return cls(
            next(known for known in COMBINATION_KINDS if known == kind),
            field.get("objective").number(),
            _interval_in(field.get("over_best_single")),
            field.get("relative_log_loss").number(0),
            field.get("taken").flag(),
        )


def ensemble_scores(
    steps: StepDecisions,
    baselines: Mapping[str, NDArray[np.uint8]],
    targets_NK: NDArray[np.uint8],
    probs_NK: NDArray[np.float32],
    labels: LabelSet,
    config: EnsembleConfig,
    chosen: Mapping[str, int] | None = None,
) -> EnsembleScores:
    """Score an ensemble's predictions.

    Args:
        steps: decisions after each step.
        baselines: name -> decisions (N, K) to compare with.
        targets_NK: targets, 0 and 1.
        probs_NK: the ensemble's probabilities.
        labels: names of the K columns.
        config: resamples and seed of the intervals.
        chosen: how many outer folds chose each combination, where the predictions are cross-fitted.
    """
    resamples, seed = config.bootstrap, config.seed
    card = score_card(targets_NK, steps.ensemble, probs_NK, labels, resamples, seed)
    half = decision_scores(targets_NK, steps.ensemble_half, labels, resamples, seed)
    over = {
        name: paired_differences(
            targets_NK, steps.ensemble, baseline_NK, COMPARED, resamples=resamples, seed=seed
        )
        for name, baseline_NK in baselines.items()
    }
    by_step = {
        step: by_label(labels, metrics.per_class_f1(metrics.Counts.of(targets_NK, getattr(steps, step))))
        for step in STEPS
    }
    return EnsembleScores(**{**vars(card), "at_half": half}, over=over, steps=by_step, chosen=chosen)


def summary_lines(card: ScoreCard) -> list[str]:
    """The figures that depend on decisions, one line at tuned thresholds and one at 0.5."""
    cards = [("at its thresholds", card), *([("at 0.5", card.at_half)] if card.at_half else [])]
    return [
        f"macro-F1 {_three(scores.macro_f1)}, micro-F1 {_three(scores.micro_f1)}, "
        f"F2 per image {_three(scores.samples_f2)} {where}"
        for where, scores in cards
    ]


def _three(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _gains_in(field: JsonField) -> dict[str, Interval]:
    figures = list(COMPARED)
    return {name: _interval_in(f) for name, f in zip(figures, field.keyed(figures), strict=True)}


def _interval_in(field: JsonField) -> Interval:
    ends = [field.get(name).number_or_none() for name in ("value", "low", "high")]
    return Interval(*(float("nan") if end is None else end for end in ends))


def _chosen_in(field: JsonField) -> dict[str, int]:
    unknown = [kind for kind in field.mapping() if kind not in COMBINATION_KINDS]
    if unknown:
        field.refuse(f"must hold only {', '.join(COMBINATION_KINDS)}", unknown[0])
    return {kind: field.get(kind).integer() for kind in field.mapping()}
