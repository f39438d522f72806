"""A fitted combination of calibrated members: apply it to probabilities, convert it to and from JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never, cast, get_args

import numpy as np
from numpy.typing import NDArray

from canopy.config import CombinationKind
from canopy.ensemble.logistic import logit, sigmoid
from canopy.metrics import Floats
from canopy.storage.json_fields import JsonField

Space = Literal["probability", "logit", "rank"]
"""The scale on which members are summed."""
COMBINATION_KINDS: tuple[CombinationKind, ...] = get_args(CombinationKind)
"""From the simplest to the most flexible."""
SPACES: dict[CombinationKind, Space] = {
    "best_single": "probability",
    "mean": "probability",
    "rank_mean": "rank",
    "geometric_mean": "logit",
    "greedy": "probability",
    "simplex": "probability",
    "per_class": "probability",
    "logistic": "logit",
    "logistic_two_level": "logit",
    "ridge_two_level": "probability",
}
POOLS = ("best_single", "mean", "rank_mean", "geometric_mean", "greedy", "simplex", "per_class")
"""Kinds whose weights are shares: at least 0, with sum 1 in every class."""
QUANTILES = 512
"""Number of quantiles that describe a member's distribution, for the rank of a single image."""


@dataclass(frozen=True, eq=False)
class Combination:
    """A weighted sum over members in some space; stacking adds levels over labels.

    Args:
        kind: the method.
        space: probability (linear pool), logit (geometric pool, logistic stacking), or rank.
        weights_MK: weight of each member for each class.
        bias_K: constant added to the sum of each class.
        level1_MFK: first level over labels: member m's K logits and a constant (F = K + 1) give its K scores.
        level2_FK: last level over labels: the K summed logits and a constant give the K final ones.
        quantiles_MKQ: rank mean only: quantiles of each member and class on the fitting rows.
    """

    kind: CombinationKind
    space: Space
    weights_MK: Floats
    bias_K: Floats
    level1_MFK: Floats | None = None
    level2_FK: Floats | None = None
    quantiles_MKQ: NDArray[np.float32] | None = None

    def apply(
        self, members: Sequence[NDArray[Any]], logits: Sequence[NDArray[np.float32]] | None = None
    ) -> NDArray[np.float32]:
        """Scores in [0, 1], shape (N, K).

        Args:
            members: M arrays of calibrated probabilities (N, K).
            logits: their logits, where the caller has them; None to compute them.
        """
        total_NK = np.zeros(members[0].shape, np.float32)
        for m, probs_NK in enumerate(members):
            if self.weights_MK[m].any():
                mapped_NK = self._mapped(m, probs_NK, None if logits is None else logits[m])
                total_NK += self.weights_MK[m].astype(np.float32) * mapped_NK
        total_NK += self.bias_K.astype(np.float32)
        if self.level2_FK is not None:
            total_NK = _linear(total_NK, self.level2_FK)
        match self.space:
            case "probability" | "rank":
                return np.clip(total_NK, np.float32(0), np.float32(1))
            case "logit":
                return np.asarray(sigmoid(total_NK), np.float32)
            case _:
                assert_never(self.space)

    def to_json(self, labels: Sequence[str], members: Sequence[str]) -> dict[str, Any]:
        """The JSON form, by member and label name."""

        def by_label(values_K: Floats) -> dict[str, float]:
            return dict(zip(labels, values_K.tolist(), strict=True))

        def by_member(values: Sequence[Any]) -> dict[str, Any]:
            return dict(zip(members, values, strict=True))

        return {
            "kind": self.kind,
            "space": self.space,
            "weights": by_member([by_label(row_K) for row_K in self.weights_MK]),
            "bias": by_label(self.bias_K),
            "level1": None if self.level1_MFK is None else by_member(self.level1_MFK.tolist()),
            "level2": None if self.level2_FK is None else self.level2_FK.tolist(),
            "quantiles": None if self.quantiles_MKQ is None else by_member(self.quantiles_MKQ.tolist()),
        }

    @classmethod
    def from_json(cls, field: JsonField, labels: Sequence[str], members: Sequence[str]) -> Combination:
        """Read what :meth:`to_json` wrote for these labels and members.

        Raises:
            InputError: of the field's class, for a part that is missing, has the wrong shape or range, or
                does not belong to the kind.
        """
        kind = cast(CombinationKind, field.get("kind").choice(COMBINATION_KINDS))
        space = cast(Space, field.get("space").choice(get_args(Space)))
        if space != SPACES[kind]:
            field.get("space").refuse(f"must be {SPACES[kind]} for the kind {kind}")
        classes = len(labels)
        level1 = _part_of(field, "level1", kind == "ridge_two_level")
        level2 = _part_of(field, "level2", kind == "logistic_two_level")
        quantiles = _part_of(field, "quantiles", kind == "rank_mean")
        bias = field.get("bias").keyed(labels)
        return cls(
            kind,
            space,
            weights_MK=_weights_in(field.get("weights"), labels, members, kind),
            bias_K=np.array([label.number() for label in bias]),
            level1_MFK=None
            if level1 is None
            else np.stack([member.array((classes + 1, classes)) for member in level1.keyed(members)]),
            level2_FK=None if level2 is None else level2.array((classes + 1, classes)),
            quantiles_MKQ=None if quantiles is None else _quantiles_in(quantiles, classes, members),
        )

    def _mapped(
        self, m: int, probs_NK: NDArray[Any], logits_NK: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Member m's probabilities in the space of the sum."""
        probs_NK = probs_NK.astype(np.float32, copy=False)
        if logits_NK is None and (self.space == "logit" or self.level1_MFK is not None):
            logits_NK = np.asarray(logit(probs_NK), np.float32)
        if self.level1_MFK is not None:
            assert logits_NK is not None
            return _linear(logits_NK, self.level1_MFK[m])
        match self.space:
            case "probability":
                return probs_NK
            case "logit":
                assert logits_NK is not None
                return logits_NK
            case "rank":
                assert self.quantiles_MKQ is not None
                return ranks(probs_NK, self.quantiles_MKQ[m])
            case _:
                assert_never(self.space)


def _linear(inputs_NK: NDArray[np.float32], level_FK: Floats) -> NDArray[np.float32]:
    """A level over labels, summed label by label: the order of sums in a matrix product depends on N."""
    level_FK = level_FK.astype(np.float32)
    total_NK = np.tile(level_FK[-1], (len(inputs_NK), 1))
    for k, weights_K in enumerate(level_FK[:-1]):
        total_NK += inputs_NK[:, k, None] * weights_K
    return total_NK


def quantiles(probs_NK: NDArray[Any], count: int = QUANTILES) -> NDArray[np.float32]:
    """``count`` evenly spaced quantiles of each class's scores, shape (K, Q)."""
    return np.asarray(np.quantile(probs_NK, np.linspace(0, 1, count), axis=0).T, np.float32)


def ranks(probs_NK: NDArray[Any], quantiles_KQ: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rank of each score in a stored distribution, in [0, 1], shape (N, K); ties get the mean rank."""
    columns = []
    for k, knots in enumerate(quantiles_KQ):
        columns.append(np.interp(probs_NK[:, k], *quantile_curve(knots)))
    return np.stack(columns, axis=1).astype(np.float32)


def quantile_curve(quantiles_Q: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """The distinct quantiles of one class, and the rank of each: knots of the curve of its ranks."""
    values, first, count = np.unique(quantiles_Q, return_index=True, return_counts=True)
    middle = (first + (count - 1) / 2) / max(len(quantiles_Q) - 1, 1)
    return values.astype(np.float64), middle


def _part_of(field: JsonField, name: str, needed: bool) -> JsonField | None:
    """A field of one combination kind: required for that kind, null for the others."""
    part = field.get(name)
    if needed == (part.value is None):
        part.refuse("must be present for this kind" if needed else "must be null for this kind")
    return part if needed else None


def _weights_in(field: JsonField, labels: Sequence[str], members: Sequence[str], kind: str) -> Floats:
    rows = [[label.number() for label in member.keyed(labels)] for member in field.keyed(members)]
    weights_MK = np.array(rows)
    if kind in POOLS and ((weights_MK < 0).any() or (np.abs(weights_MK.sum(axis=0) - 1) > 1e-6).any()):
        field.refuse("must be at least 0 and add up to 1 for every label", "other weights")
    return weights_MK


def _quantiles_in(field: JsonField, classes: int, members: Sequence[str]) -> NDArray[np.float32]:
    parts = field.keyed(members)
    found = [part.array((classes, None), 0, 1) for part in parts]
    for part, quantiles_KQ in zip(parts, found, strict=True):
        if quantiles_KQ.shape != found[0].shape or not quantiles_KQ.size or (np.diff(quantiles_KQ) < 0).any():
            part.refuse(
                "must hold equally many quantiles for every label, in rising order", quantiles_KQ.shape
            )
    return np.stack(found).astype(np.float32)
