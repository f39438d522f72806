"""Tables of an ensemble as CSV: figures of each class, and decisions."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.ensemble.model import Ensemble
from canopy.labels import LabelSet
from canopy.predictions.safe_csv import csv_bytes

SEPARATORS = (" ", ";", "|", ",", "/")
"""Separators of the tags in ``decisions.csv``; the first, preferred one is that of Kaggle's competition."""


@dataclass(frozen=True)
class PerClassRow:
    """Figures of one label, measured on the test split where it was scored, else estimated by cross-fitting.

    Args:
        label: the label.
        threshold: its threshold.
        fitting_positives: positives among the fitting rows.
        positives: positives among the scored rows.
        f1: F1 of the ensemble; None without positives.
        f1_low: lower end of its 95% interval.
        f1_high: upper end of its 95% interval.
        f1_is: ``measured`` or ``estimated``.
        f1_single_half: F1 of the best single member at 0.5.
        f1_single_tuned: F1 of the same member, calibrated and with tuned thresholds.
        f1_ensemble_half: F1 of the ensemble at 0.5.
        f1_ensemble: F1 of the ensemble.
        gain_tuning: F1 gained from ``single_half`` to ``single_tuned``.
        gain_combining: F1 gained from ``single_tuned`` to the ensemble.
    """

    label: str
    threshold: float
    fitting_positives: int
    positives: int
    f1: float | None
    f1_low: float | None
    f1_high: float | None
    f1_is: str
    f1_single_half: float | None
    f1_single_tuned: float | None
    f1_ensemble_half: float | None
    f1_ensemble: float | None
    gain_tuning: float | None
    gain_combining: float | None


def per_class_rows(ensemble: Ensemble) -> list[PerClassRow]:
    """One row per label of a fitted ensemble."""
    card = ensemble.measured or ensemble.estimated
    assert card is not None
    assert card.intervals is not None
    assert ensemble.fitted_on is not None
    rows = []
    for k, label in enumerate(ensemble.labels.names):
        low, high = card.intervals.per_class_f1[label]
        f1 = {step: by_name[label] for step, by_name in card.steps.items()}
        before, tuned, after = (f1[step] for step in ("single_half", "single_tuned", "ensemble"))
        rows.append(
            PerClassRow(
                label=label,
                threshold=float(ensemble.thresholds[k]),
                fitting_positives=ensemble.fitted_on.positives[label],
                positives=card.support[label],
                f1=card.per_class_f1[label],
                f1_low=low,
                f1_high=high,
                f1_is="measured" if ensemble.measured else "estimated",
                f1_single_half=before,
                f1_single_tuned=tuned,
                f1_ensemble_half=f1["ensemble_half"],
                f1_ensemble=after,
                gain_tuning=None if before is None or tuned is None else tuned - before,
                gain_combining=None if tuned is None or after is None else after - tuned,
            )
        )
    return rows


def per_class_csv(ensemble: Ensemble) -> bytes:
    """The rows of :func:`per_class_rows` as CSV."""
    rows: list[dict[str, Any]] = [asdict(row) for row in per_class_rows(ensemble)]
    return csv_bytes(list(rows[0]), [list(row.values()) for row in rows])


def decisions_csv(ids: NDArray[np.str_], decisions_NK: NDArray[np.uint8], labels: LabelSet) -> bytes:
    """Decisions as CSV: ``image_name`` and ``tags``, the names joined by :func:`tag_separator`.

    Args:
        ids: ids of the N rows.
        decisions_NK: decisions, 0 and 1.
        labels: names of the K columns.
    """
    separator = tag_separator(labels)
    tags = [separator.join(names) for names in labels.decode(decisions_NK)]
    return csv_bytes(["image_name", "tags"], zip(ids.tolist(), tags, strict=True))


def tag_separator(labels: LabelSet) -> str:
    """A blank where no label holds white space, else the first of ``; | , /`` that no label holds.

    Where labels hold all of these: the first other printable character that no label holds.
    """
    used = set("".join(labels.names))
    if not any(character.isspace() for character in used):
        return SEPARATORS[0]
    others = (chr(code) for code in range(ord("!"), sys.maxunicode) if chr(code).isprintable())
    return next(s for s in chain(SEPARATORS[1:], others) if s not in used)
