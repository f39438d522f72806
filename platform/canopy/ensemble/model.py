"""The fitted ensemble: everything needed to decide, in a file that a person can read.

Nothing here needs Ray, torch or the data it was fitted on.
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
from canopy.ensemble.combine import Combination
from canopy.errors import PredictionsError
from canopy.labels import LabelSet
from canopy.storage import files

FORMAT = "canopy-ensemble/1"
CHUNK = 65536
"""Rows combined at a time."""


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Members -> calibration per class -> combination -> recalibration -> thresholds -> exclusivity.

    Args:
        labels: names of the K classes.
        members: names of the M members it reads; :meth:`predict` needs each of them.
        calibrations: one per member.
        combination: weights and the space they act in.
        recalibration: of the combined score, so that it is a probability again.
        thresholds: per class, float32-exact; a class is decided for where its probability reaches it.
        exclusive: groups of label names of which each row has exactly one.
        summary: in a sentence, what it is and why.
        notes: what a reader must know: labels too rare to tune, members left out.
        estimated: cross-fitted score card of the whole procedure (see :func:`canopy.metrics.bootstrap.score`).
        measured: score card on the test split, when it has been scored.
        fitted_on: ``rows``, ``hash`` of the data, ``positives`` by label.
        left_out: members without weight, each with the reason.
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
    estimated: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] | None = None
    fitted_on: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    search: tuple[dict[str, Any], ...] = ()

    @property
    def weights(self) -> dict[str, float]:
        """Each given member's share of the absolute weight, averaged over classes; 0 for those left out."""
        size_MK = np.abs(self.combination.weights_MK)
        share_MK = size_MK / np.maximum(size_MK.sum(axis=0), 1e-12)
        used = dict(zip(self.members, share_MK.mean(axis=1).tolist(), strict=True))
        return used | dict.fromkeys(self.left_out, 0.0)

    def predict(
        self, probs: Mapping[str, NDArray[Any] | Sequence[NDArray[Any]]]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Probabilities and decisions, each of shape (N, K), from each member's probabilities (N, K).

        A member may give several arrays, one per fold model: each is calibrated, then they are averaged
        (a mean of models is more timid than the single models that the calibration was fitted on).
        Rows are decided one by one: a batch gives what its rows give alone. Other members are ignored.

        Raises:
            PredictionsError: when a member is missing, or a shape or value is not as it must be.
        """
        probs_NK = self.probabilities(probs)
        return probs_NK, self.decide(probs_NK)

    def probabilities(
        self, probs: Mapping[str, NDArray[Any] | Sequence[NDArray[Any]]]
    ) -> NDArray[np.float32]:
        """The first half of :meth:`predict`, some rows at a time: little memory beside input and result."""
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

    def scored(self, measured: dict[str, Any]) -> Ensemble:
        """The same ensemble with what was measured on data that no choice has seen."""
        return replace(self, measured=measured)

    def save(self, path: str | Path) -> None:
        """Write JSON; numbers round-trip exactly."""
        text = json.dumps(to_json(self), indent=1, allow_nan=False, ensure_ascii=False)
        # A plain list on one line reads better; inside a string there is no line break to match.
        text = re.sub(r"\[\n\s+([^\[\]{}]*?)\n\s*\]", lambda m: "[" + re.sub(r"\n\s+", " ", m[1]) + "]", text)
        files.write_bytes(str(path), f"{text}\n".encode())

    @classmethod
    def load(cls, path: str | Path) -> Ensemble:
        """Read what :meth:`save` wrote.

        Raises:
            PredictionsError: when the file is missing or is no ensemble.
        """
        remedy = "Run the ensemble stage, or give the path of its ensemble.json."
        try:
            content = json.loads(files.read_bytes(str(path)))
        except (FileNotFoundError, IsADirectoryError, ValueError) as error:
            raise PredictionsError(
                f"{path}", "must be an ensemble's JSON file", str(error), remedy
            ) from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            got = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise PredictionsError(f"{path}", f"must be of format {FORMAT}", repr(got), remedy)
        try:
            return from_json(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            got = f"a part missing or damaged: {type(error).__name__} {error}"
            raise PredictionsError(f"{path}", "must be whole", got, remedy) from error

    def _checked(
        self, name: str, probs: Mapping[str, NDArray[Any] | Sequence[NDArray[Any]]]
    ) -> list[NDArray[Any]]:
        if name not in probs:
            got, remedy = sorted(probs), f"The ensemble reads: {', '.join(self.members)}."
            raise PredictionsError(f"The probabilities of member {name!r}", "must be given", got, remedy)
        given = probs[name]
        arrays = [given] if isinstance(given, np.ndarray) else [np.asarray(part) for part in given]
        if not arrays:
            raise PredictionsError(f"Member {name!r}", "must give an array", "an empty list", "Add one.")
        for array in arrays:
            if array.dtype.kind not in "fiub":
                remedy = "Convert it first."
                raise PredictionsError(
                    f"The array of member {name!r}", "must hold numbers", str(array.dtype), remedy
                )
            if array.ndim != 2 or array.shape[1] != len(self.labels):
                must = f"must be of shape (N, {len(self.labels)})"
                remedy = "Give one column per label."
                raise PredictionsError(f"The array of member {name!r}", must, array.shape, remedy)
            if array.size and not (array.min() >= 0 and array.max() <= 1):  # NaN fails too
                n, k = np.argwhere(~((array >= 0) & (array <= 1)))[0]
                thing = f"Member {name!r}, row {n}, label {self.labels.names[k]!r}"
                raise PredictionsError(thing, "must be in [0, 1]", float(array[n, k]), "Give probabilities.")
        return arrays


def decide(
    probs_NK: NDArray[np.float32], thresholds_K: NDArray[np.float32], groups: Sequence[Sequence[int]] = ()
) -> NDArray[np.uint8]:
    """Decisions (N, K); of each exclusive group exactly the label that is furthest over its threshold.

    Distance is the difference of log-odds, so that a rare label's low threshold counts.
    """
    decisions_NK = metrics.decide(probs_NK, thresholds_K)
    for group in groups:
        columns = np.asarray(group)
        limit = np.clip(thresholds_K[columns].astype(np.float64), 1e-6, 1 - 1e-6)
        p = np.clip(probs_NK[:, columns].astype(np.float64), 1e-7, 1 - 1e-7)
        over = np.log(p / (1 - p)) - np.log(limit / (1 - limit))
        decisions_NK[:, columns] = 0
        decisions_NK[np.arange(len(probs_NK)), columns[over.argmax(axis=1)]] = 1
    return decisions_NK


def to_json(ensemble: Ensemble) -> dict[str, Any]:
    """A JSON-able structure, by label and member name where that helps a reader."""
    names, members, mix = ensemble.labels.names, ensemble.members, ensemble.combination

    def by_label(values: Any) -> dict[str, Any]:
        return dict(zip(names, np.asarray(values).tolist(), strict=True))

    def by_member(values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(members, values, strict=True))

    return {
        "format": FORMAT,
        "summary": ensemble.summary,
        "notes": list(ensemble.notes),
        "labels": list(names),
        "members": list(members),
        "thresholds": by_label([float(t) for t in ensemble.thresholds]),
        "combination": {
            "kind": mix.kind,
            "space": mix.space,
            "weights": by_member([by_label(row) for row in mix.weights_MK]),
            "bias": by_label(mix.bias_K),
            "level1": None if mix.level1_MFK is None else by_member(mix.level1_MFK.tolist()),
            "level2": None if mix.level2_FK is None else mix.level2_FK.tolist(),
            "quantiles": None if mix.quantiles_MKQ is None else by_member(mix.quantiles_MKQ.tolist()),
        },
        "calibration": by_member([_calibration_json(c, names) for c in ensemble.calibrations]),
        "recalibration": _calibration_json(ensemble.recalibration, names),
        "exclusive": [list(group) for group in ensemble.exclusive],
        "fitted_on": ensemble.fitted_on,
        "estimated": ensemble.estimated,
        "measured": ensemble.measured,
        "left_out": ensemble.left_out,
        "search": list(ensemble.search),
    }


def from_json(content: dict[str, Any]) -> Ensemble:
    """The ensemble behind :func:`to_json`'s structure."""
    labels, members = LabelSet(tuple(content["labels"])), tuple(content["members"])
    mix = content["combination"]

    def array(by_member: dict[str, Any] | None, dtype: Any) -> Any:
        return None if by_member is None else np.array([by_member[m] for m in members], dtype)

    weights_MK = np.array([[mix["weights"][m][k] for k in labels.names] for m in members])
    combination = Combination(
        kind=mix["kind"],
        space=mix["space"],
        weights_MK=weights_MK,
        bias_K=np.array([mix["bias"][k] for k in labels.names]),
        level1_MFK=array(mix["level1"], np.float64),
        level2_FK=None if mix["level2"] is None else np.array(mix["level2"], np.float64),
        quantiles_MKQ=array(mix["quantiles"], np.float32),
    )
    return Ensemble(
        labels=labels,
        members=members,
        calibrations=tuple(_calibration(content["calibration"][m], labels.names) for m in members),
        combination=combination,
        recalibration=_calibration(content["recalibration"], labels.names),
        thresholds=np.array([content["thresholds"][k] for k in labels.names], np.float32),
        exclusive=tuple(tuple(group) for group in content["exclusive"]),
        summary=content["summary"],
        notes=tuple(content["notes"]),
        estimated=content["estimated"],
        measured=content["measured"],
        fitted_on=content["fitted_on"],
        left_out=content["left_out"],
        search=tuple(content["search"]),
    )


def _calibration_json(calibration: Calibration, names: Sequence[str]) -> dict[str, Any]:
    if calibration.knots is not None:
        curves: list[Any] = [{"p": p.tolist(), "q": q.tolist()} for p, q in calibration.knots]
    else:
        assert calibration.coefficients_K3 is not None
        curves = calibration.coefficients_K3.tolist()
    return {"kind": calibration.kind, "by_label": dict(zip(names, curves, strict=True))}


def _calibration(content: dict[str, Any], names: Sequence[str]) -> Calibration:
    curves = [content["by_label"][name] for name in names]
    if content["kind"] == "isotonic":
        return Calibration("isotonic", None, tuple((np.array(c["p"]), np.array(c["q"])) for c in curves))
    return Calibration(content["kind"], np.array(curves, np.float64))
