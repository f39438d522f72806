"""The fitted ensemble: all that prediction needs, stored as a JSON file that people can read.

Loading and applying it needs neither Ray nor torch nor the fitting data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy import metrics
from canopy.ensemble.calibrate import Calibration
from canopy.ensemble.combination import Combination
from canopy.ensemble.scores import CandidateScore, EnsembleScores
from canopy.ensemble.threshold_curves import NEVER
from canopy.errors import PredictionsError
from canopy.labels import LabelSet
from canopy.storage import files
from canopy.storage.json_fields import JsonField

FORMAT = "canopy-ensemble/1"
CHUNK = 65536
"""Number of rows that are combined at a time."""
REMEDY = "Run the ensemble stage again, or restore the file."
Members = Mapping[str, NDArray[Any] | Sequence[NDArray[Any]]]
"""Member name -> its probabilities (N, K), or a list of such arrays, one per fold model."""


@dataclass(frozen=True)
class FittedOn:
    """The data that an ensemble was fitted on.

    Args:
        rows: number of fitting rows.
        searched_rows: number of rows on which the candidates were compared; None where unknown.
        hash: 16 hex digits over ids, targets and probabilities.
        positives: label -> number of positives.
    """

    rows: int
    searched_rows: int | None
    hash: str
    positives: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """The JSON form, with the field names as keys."""
        searched = {} if self.searched_rows is None else {"searched_rows": self.searched_rows}
        return {"rows": self.rows, **searched, "hash": self.hash, "positives": dict(self.positives)}

    @classmethod
    def from_json(cls, content: JsonField, labels: Sequence[str]) -> FittedOn:
        """Read what :meth:`to_json` wrote for these labels."""
        rows, searched = content.get("rows").integer(1), content.optional("searched_rows")
        digest = content.get("hash")
        if not re.fullmatch("[0-9a-f]{16}", digest.text()):
            digest.refuse("must be 16 hexadecimal digits")
        positives = content.get("positives").keyed(labels)
        return cls(
            rows,
            None if searched is None else searched.integer(1, rows),
            digest.text(),
            {name: count.integer(0, rows) for name, count in zip(labels, positives, strict=True)},
        )


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Members -> calibration per class -> combination -> recalibration -> thresholds -> exclusive groups.

    Args:
        labels: names of the K classes.
        members: names of the M members that it reads; :meth:`predict` needs each of them.
        calibrations: one per member.
        combination: weights and the space in which they act.
        recalibration: calibration of the combined score, which makes it a probability again.
        thresholds: one per class, float32-exact; a label is predicted if its probability >= threshold.
        exclusive: groups of label names of which each row has exactly one.
        summary: one sentence on the combination and the reason for it.
        notes: warnings for the reader, e.g. labels too rare to tune.
        estimated: cross-fitted scores of the whole procedure; None before the fit is complete.
        measured: scores on the test split; None where it was not scored.
        fitted_on: the fitting data; None before the fit is complete.
        left_out: member without weight -> reason.
        search: cross-fitted figures of every candidate.
    """

    labels: LabelSet
    members: tuple[str, ...]
    calibrations: tuple[Calibration, ...]
    combination: Combination
    recalibration: Calibration
    thresholds: NDArray[np.float32]
    exclusive: tuple[tuple[str, ...], ...] = ()
    summary: str = ""
    notes: tuple[str, ...] = ()
    estimated: EnsembleScores | None = None
    measured: EnsembleScores | None = None
    fitted_on: FittedOn | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    search: tuple[CandidateScore, ...] = ()

    @property
    def weights(self) -> dict[str, float]:
        """Each member's share of the absolute weight, mean over classes; 0 for members left out."""
        size_MK = np.abs(self.combination.weights_MK)
        share_MK = size_MK / np.maximum(size_MK.sum(axis=0), 1e-12)
        used = dict(zip(self.members, share_MK.mean(axis=1).tolist(), strict=True))
        return used | dict.fromkeys(self.left_out, 0.0)

    def predict(self, probs: Members) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Probabilities and decisions, each of shape (N, K).

        Rows are independent: the result of a row does not depend on the batch.

        Args:
            probs: each member's probabilities. If a member has one array per fold model, each is calibrated,
                then averaged: calibration was fitted on single models, and a mean is less extreme than its
                parts. Names that the ensemble does not read are ignored.

        Raises:
            PredictionsError: when a member is missing, or an array has the wrong shape or values.
        """
        probs_NK = self.probabilities(probs)
        return probs_NK, self.decide(probs_NK)

    def probabilities(self, probs: Members) -> NDArray[np.float32]:
        """The probabilities of :meth:`predict`, shape (N, K), computed in chunks of :data:`CHUNK` rows.

        Raises:
            PredictionsError: when a member is missing, or an array has the wrong shape or values.
        """
        members = [self._checked(name, probs) for name in self.members]
        first = members[0][0]
        for name, arrays in zip(self.members, members, strict=True):
            odd = next((array for array in arrays if array.shape != first.shape), None)
            if odd is not None:
                must, got = f"must be of one shape {first.shape}", f"{odd.shape} of {name!r}"
                raise PredictionsError(
                    "The members' arrays", must, got, "Give the same rows of every member."
                )
        probs_NK = np.empty(first.shape, np.float32)
        for start in range(0, len(probs_NK), CHUNK):
            part = slice(start, start + CHUNK)
            calibrated = []
            for calibration, arrays in zip(self.calibrations, members, strict=True):
                folds = [calibration.apply(array[part].astype(np.float32, copy=False)) for array in arrays]
                calibrated.append(folds[0] if len(folds) == 1 else np.stack(folds).mean(axis=0))
            probs_NK[part] = self.recalibration.apply(self.combination.apply(calibrated))
        return probs_NK

    def decide(self, probs_NK: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Decisions (N, K) from the ensemble's own probabilities (N, K)."""
        groups = [[self.labels.index(name) for name in group] for group in self.exclusive]
        return decide(probs_NK, self.thresholds, groups)

    def scored(self, measured: EnsembleScores) -> Ensemble:
        """The same ensemble with its scores on the test split."""
        return replace(self, measured=measured)

    def save(self, path: str | Path) -> None:
        """Write JSON; numbers round-trip exactly."""
        text = json.dumps(to_json(self), indent=1, allow_nan=False, ensure_ascii=False)
        # A list of scalars goes on one line; a line break never occurs inside a JSON string.
        text = re.sub(r"\[\n\s+([^\[\]{}]*?)\n\s*\]", lambda m: "[" + re.sub(r"\n\s+", " ", m[1]) + "]", text)
        files.write_bytes(str(path), f"{text}\n".encode())

    @classmethod
    def load(cls, path: str | Path) -> Ensemble:
        """Read and validate what :meth:`save` wrote.

        Raises:
            PredictionsError: when the file is missing or any part of it is damaged; file and field are named.
        """
        try:
            data = files.read_bytes(str(path))
        except (FileNotFoundError, IsADirectoryError) as error:
            remedy = "Run the ensemble stage, or give the path of its ensemble.json."
            raise PredictionsError(f"{path}", "must be an ensemble's JSON file", "none", remedy) from error
        content = JsonField.parse(data, str(path), PredictionsError, REMEDY)
        if content.mapping().get("format") != FORMAT:
            content.refuse(f"must be of format {FORMAT}", repr(content.value.get("format")))
        return from_json(content)

    def _checked(self, name: str, probs: Members) -> list[NDArray[Any]]:
        """A member's arrays.

        Raises:
            PredictionsError: naming the member, and the row and label of the first bad value.
        """
        if name not in probs:
            got, remedy = sorted(probs), f"The ensemble reads: {', '.join(self.members)}."
            raise PredictionsError(f"The probabilities of member {name!r}", "must be given", got, remedy)
        given = probs[name]
        arrays = [given] if isinstance(given, np.ndarray) else [np.asarray(part) for part in given]
        if not arrays:
            raise PredictionsError(f"Member {name!r}", "must give an array", "an empty list", "Add one.")
        thing = f"The array of member {name!r}"
        for array in arrays:
            if array.dtype.kind not in "fiub":
                raise PredictionsError(thing, "must hold numbers", str(array.dtype), "Convert it first.")
            if array.ndim != 2 or array.shape[1] != len(self.labels):
                must, remedy = f"must be of shape (N, {len(self.labels)})", "Give one column per label."
                raise PredictionsError(thing, must, array.shape, remedy)
            if array.size and not (array.min() >= 0 and array.max() <= 1):  # NaN fails too
                n, k = np.argwhere(~((array >= 0) & (array <= 1)))[0]
                value_of = f"Member {name!r}, row {n}, label {self.labels.names[k]!r}"
                raise PredictionsError(
                    value_of, "must be in [0, 1]", float(array[n, k]), "Give probabilities."
                )
        return arrays


def decide(
    probs_NK: NDArray[np.float32], thresholds_K: NDArray[np.float32], groups: Sequence[Sequence[int]] = ()
) -> NDArray[np.uint8]:
    """Decisions (N, K); in each exclusive group exactly one label: the one furthest above its threshold.

    The distance is the difference of log-odds, so that a rare label's low threshold counts.

    Args:
        probs_NK: probabilities in [0, 1].
        thresholds_K: one threshold per class, in [0, 1], or :data:`NEVER` for a label that is never
            predicted.
        groups: columns of each exclusive group.
    """
    decisions_NK = metrics.decide(probs_NK, thresholds_K)
    for group in groups:
        columns = np.asarray(group)
        threshold = np.clip(thresholds_K[columns].astype(np.float64), 1e-6, 1 - 1e-6)
        p = np.clip(probs_NK[:, columns].astype(np.float64), 1e-7, 1 - 1e-7)
        over = np.log(p / (1 - p)) - np.log(threshold / (1 - threshold))
        decisions_NK[:, columns] = 0
        decisions_NK[np.arange(len(probs_NK)), columns[over.argmax(axis=1)]] = 1
    return decisions_NK


def to_json(ensemble: Ensemble) -> dict[str, Any]:
    """The JSON form of an ensemble, by label and member name where that helps a reader."""
    names, members = ensemble.labels.names, ensemble.members
    thresholds = [float(threshold) for threshold in ensemble.thresholds]
    calibrations = [calibration.to_json(names) for calibration in ensemble.calibrations]
    return {
        "format": FORMAT,
        "summary": ensemble.summary,
        "notes": list(ensemble.notes),
        "labels": list(names),
        "members": list(members),
        "thresholds": dict(zip(names, thresholds, strict=True)),
        "combination": ensemble.combination.to_json(names, members),
        "calibration": dict(zip(members, calibrations, strict=True)),
        "recalibration": ensemble.recalibration.to_json(names),
        "exclusive": [list(group) for group in ensemble.exclusive],
        "fitted_on": {} if ensemble.fitted_on is None else ensemble.fitted_on.to_json(),
        "estimated": {} if ensemble.estimated is None else ensemble.estimated.to_json(),
        "measured": None if ensemble.measured is None else ensemble.measured.to_json(),
        "left_out": dict(ensemble.left_out),
        "search": [candidate.to_json() for candidate in ensemble.search],
    }


def from_json(content: JsonField) -> Ensemble:
    """The ensemble in :func:`to_json`'s form, every part validated.

    Raises:
        InputError: of the field's class, naming the first field that is missing, of the wrong type or order,
            not finite or out of range.
    """
    labels = LabelSet(_distinct(content.get("labels")))
    names, members = labels.names, _distinct(content.get("members"))
    thresholds = content.get("thresholds").keyed(names)
    fitted_on, estimated = content.get("fitted_on"), content.get("estimated")
    measured = content.optional("measured")
    return Ensemble(
        labels=labels,
        members=members,
        calibrations=tuple(
            Calibration.from_json(member, names) for member in content.get("calibration").keyed(members)
        ),
        combination=Combination.from_json(content.get("combination"), names, members),
        recalibration=Calibration.from_json(content.get("recalibration"), names),
        thresholds=np.array([label.number(0, NEVER) for label in thresholds], np.float32),
        exclusive=_groups_in(content.get("exclusive"), names),
        summary=content.get("summary").text(),
        notes=content.get("notes").texts(),
        estimated=EnsembleScores.from_json(estimated, names) if estimated.mapping() else None,
        measured=None if measured is None else EnsembleScores.from_json(measured, names),
        fitted_on=FittedOn.from_json(fitted_on, names) if fitted_on.mapping() else None,
        left_out=_left_out_in(content.get("left_out"), members),
        search=tuple(CandidateScore.from_json(item) for item in content.get("search").items()),
    )


def _distinct(content: JsonField) -> tuple[str, ...]:
    """A list of at least one name, all different and none empty."""
    names = content.texts()
    if not names or "" in names or len(set(names)) < len(names):
        content.refuse("must hold at least one name, all different and none empty")
    return names


def _groups_in(content: JsonField, labels: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    groups = tuple(group.texts() for group in content.items())
    flat = [name for group in groups for name in group]
    if len(set(flat)) < len(flat) or not set(flat) <= set(labels) or any(len(group) < 2 for group in groups):
        content.refuse("must hold groups of two or more labels, each label in one group only")
    return groups


def _left_out_in(content: JsonField, members: Sequence[str]) -> dict[str, str]:
    found = {name: content.get(name).text() for name in content.mapping()}
    if set(found) & set(members):
        content.refuse("must hold no member that the ensemble reads", sorted(set(found) & set(members))[0])
    return found
