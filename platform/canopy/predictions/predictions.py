"""Predictions of a member, validated on construction, and the alignment of several members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from canopy.errors import PredictionsError
from canopy.labels import LabelSet
from canopy.predictions.hash_sampling import hash_ids


@dataclass(frozen=True, eq=False)
class Predictions:
    """One member's predictions of N images and K labels.

    Args:
        ids: shape (N,), distinct strings.
        probs_NK: shape (N, K), probabilities in [0, 1].
        labels: the K label names, in the order of the columns.
        logits_NK: shape (N, K), finite; None where the member has none.
        targets_NK: shape (N, K), values 0 and 1; None where unknown.
        config_hash: fingerprint of the config that made the predictions; None where unknown.

    Raises:
        PredictionsError: when one of these rules is broken; the first such row and label are named.
    """

    ids: NDArray[np.str_]
    probs_NK: NDArray[np.float32]
    labels: LabelSet
    logits_NK: NDArray[np.float32] | None = None
    targets_NK: NDArray[np.uint8] | None = None
    config_hash: str | None = None

    def __post_init__(self) -> None:
        ids = np.asarray(self.ids)
        if ids.ndim != 1 or ids.dtype.kind not in "UTO":
            problem = "must be a one-dimensional array of strings"
            raise PredictionsError(
                "The ids", problem, f"{ids.dtype} {ids.shape}", "Name each row by a string."
            )
        object.__setattr__(self, "ids", ids.astype(np.str_, copy=False))
        self._check_ids()
        object.__setattr__(self, "probs_NK", self._matrix("probability", self.probs_NK, (0.0, 1.0)))
        if self.logits_NK is not None:
            object.__setattr__(self, "logits_NK", self._matrix("logit", self.logits_NK, None))
        if self.targets_NK is not None:
            targets_NK = self._matrix("target", self.targets_NK, (0.0, 1.0))
            self._refuse_first("target", targets_NK, (targets_NK != 0) & (targets_NK != 1), "must be 0 or 1")
            object.__setattr__(self, "targets_NK", targets_NK.astype(np.uint8))

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Predictions:
        """The rows at ``index``, positions or a mask, in its order."""
        return replace(
            self,
            ids=self.ids[index],
            probs_NK=self.probs_NK[index],
            logits_NK=None if self.logits_NK is None else self.logits_NK[index],
            targets_NK=None if self.targets_NK is None else self.targets_NK[index],
        )

    def _check_ids(self) -> None:
        """Refuse ids that are not distinct."""
        hashes = np.sort(hash_ids(self.ids))  # numbers sort far faster than strings
        if not (hashes[1:] == hashes[:-1]).any():
            return
        twice = _first_repeated(self.ids)
        if twice is not None:
            raise PredictionsError("The ids", "must be distinct", f"{twice!r} twice", "Drop one of the rows.")

    def _matrix(
        self, what: str, values: NDArray[np.generic], within: tuple[float, float] | None
    ) -> NDArray[np.float32]:
        """``values`` as float32, checked for shape, type and range."""
        array = np.asarray(values)
        expected = (len(self.ids), len(self.labels))
        if array.shape != expected:
            remedy = "Give one row per id and one column per label."
            raise PredictionsError(
                f"The array of {what} values", f"must be of shape {expected}", array.shape, remedy
            )
        if array.dtype.kind not in "fiub":
            remedy = "Convert it first."
            raise PredictionsError(
                f"The array of {what} values", "must hold numbers", str(array.dtype), remedy
            )
        numbers: NDArray[np.float32] = array.astype(np.float32, copy=False)
        if array.size and not (np.isfinite(array.min()) and np.isfinite(array.max())):
            self._refuse_first(what, array, ~np.isfinite(array), "must be finite")
        if within and array.size and (array.min() < within[0] or array.max() > within[1]):
            bad = (array < within[0]) | (array > within[1])
            self._refuse_first(what, array, bad, f"must be in [{within[0]:g}, {within[1]:g}]")
        return numbers

    def _refuse_first(
        self, what: str, values: NDArray[np.generic], bad_NK: NDArray[np.bool_], must: str
    ) -> None:
        """Raise for the first value that is marked as bad, if any."""
        if bad_NK.any():
            n, k = np.unravel_index(int(np.argmax(bad_NK)), bad_NK.shape)
            thing = f"The {what} of id {str(self.ids[n])!r}, label {self.labels.names[k]!r}"
            remedy = f"{int(bad_NK.sum())} of {bad_NK.size} values break this rule; correct the file."
            raise PredictionsError(thing, must, float(values[n, k]), remedy)


def align(members: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """Members over the same rows, sorted by id, in the order of their names.

    Nothing in the result depends on the order of the input. Targets may be missing from some members; those
    that have them must agree, and every returned member carries them.

    Raises:
        PredictionsError: when labels, ids or targets differ, naming the first difference.
    """
    if not members:
        raise PredictionsError("The ensemble", "needs at least one member", 0, "Name a predictions file.")
    ordered: dict[str, Predictions] = {}
    previous: tuple[NDArray[np.str_], NDArray[np.intp]] | None = None
    for name in sorted(members):
        ids = members[name].ids
        if previous is None or not np.array_equal(ids, previous[0]):  # members mostly share one order
            previous = (ids, np.argsort(ids, kind="stable"))
        sorted_already = bool((previous[1][1:] > previous[1][:-1]).all())
        ordered[name] = members[name] if sorted_already else members[name].rows(previous[1])
    (first_name, first), *others = ordered.items()
    for name, member in others:
        require_same_labels(first_name, first.labels, name, member.labels)
        _same_ids(first_name, first.ids, name, member.ids)
    targets_NK = None
    for name, member in ordered.items():
        if member.targets_NK is None:
            continue
        if targets_NK is None:
            targets_NK, origin = member.targets_NK, name
        elif member.targets_NK is not targets_NK and not np.array_equal(targets_NK, member.targets_NK):
            n, k = np.argwhere(targets_NK != member.targets_NK)[0]
            thing = f"The target of id {str(first.ids[n])!r}, label {first.labels.names[k]!r}"
            got = f"{targets_NK[n, k]} in {origin}, {member.targets_NK[n, k]} in {name}"
            raise PredictionsError(thing, "must be the same in all members", got, "Correct one of the files.")
    return {name: replace(member, ids=first.ids, targets_NK=targets_NK) for name, member in ordered.items()}


def concatenate(parts: Sequence[Predictions], names: Sequence[str] = ()) -> Predictions:
    """One member's parts (folds, shards) as one; without targets or logits unless all parts have them.

    Args:
        parts: at least one part.
        names: name of each part, such as its file, for errors; "part 1" and so on where empty.

    Raises:
        PredictionsError: when there is no part, labels differ, or an id is in two parts.
    """
    if not parts:
        raise PredictionsError("A member", "needs at least one file", 0, "Name a predictions file.")
    if len(parts) == 1:
        return parts[0]
    names = names or [f"part {number}" for number in range(1, len(parts) + 1)]
    for name, part in zip(names[1:], parts[1:], strict=True):
        require_same_labels(names[0], parts[0].labels, name, part.labels)
    logits = [part.logits_NK for part in parts if part.logits_NK is not None]
    targets = [part.targets_NK for part in parts if part.targets_NK is not None]
    hashes = {part.config_hash for part in parts}
    try:
        return Predictions(
            ids=np.concatenate([part.ids for part in parts]),
            probs_NK=np.concatenate([part.probs_NK for part in parts]),
            labels=parts[0].labels,
            logits_NK=np.concatenate(logits) if len(logits) == len(parts) else None,
            targets_NK=np.concatenate(targets) if len(targets) == len(parts) else None,
            config_hash=hashes.pop() if len(hashes) == 1 else None,
        )
    except PredictionsError:
        _refuse_overlap(parts, names)
        raise


def _refuse_overlap(parts: Sequence[Predictions], names: Sequence[str]) -> None:
    """Refuse parts that share a row, naming the first such id and its parts."""
    twice = _first_repeated(np.concatenate([part.ids for part in parts]))
    if twice is None:
        return
    first, second = [name for name, part in zip(names, parts, strict=True) if (part.ids == twice).any()][:2]
    must = "must differ: the files of one member must not overlap"
    remedy = "Drop the row from one of them."
    raise PredictionsError(f"The ids of {first} and {second}", must, f"{twice!r} in both", remedy)


def _first_repeated(ids: NDArray[np.str_]) -> str | None:
    """The first id, in sorted order, that occurs more than once; None where all are distinct."""
    ordered = np.sort(ids)
    same = ordered[1:] == ordered[:-1]
    return str(ordered[1:][same][0]) if same.any() else None


def refuse_shared_rows(fitting_ids: NDArray[np.str_], test_ids: NDArray[np.str_]) -> None:
    """Refuse a test split that shares rows with the fitting data: its scores would be optimistic.

    Args:
        fitting_ids: ids of the fitting rows.
        test_ids: ids of the test rows.

    Raises:
        PredictionsError: naming the first id, in sorted order, that is in both.
    """
    shared = np.isin(hash_ids(fitting_ids), hash_ids(test_ids))
    if shared.any():
        suspects = np.intersect1d(fitting_ids[shared], test_ids)
        if len(suspects):
            must = "must hold no fitting row"
            got = f"{str(suspects[0])!r} is in both ({len(suspects)} such rows)"
            remedy = "Drop these rows, or drop the targets to predict without scoring."
            raise PredictionsError("The test files with targets", must, got, remedy)


def require_same_labels(a: str, labels_a: LabelSet, b: str, labels_b: LabelSet) -> None:
    """Refuse two label sets that differ.

    Args:
        a: name of the first set's owner, for the message.
        labels_a: the first set.
        b: name of the second set's owner.
        labels_b: the second set.

    Raises:
        PredictionsError: when names or their order differ; the first difference is named.
    """
    if labels_a == labels_b:
        return
    remedy = "Give both files the same label columns in the same order."
    if len(labels_a) != len(labels_b):
        missing = sorted(set(labels_a.names) ^ set(labels_b.names))
        got = f"{len(labels_a)} labels in {a}, {len(labels_b)} in {b} (only in one: {', '.join(missing[:5])})"
        raise PredictionsError("The labels", "must be the same everywhere", got, remedy)
    for k, (in_a, in_b) in enumerate(zip(labels_a.names, labels_b.names, strict=True)):
        if in_a != in_b:
            got = f"{in_a!r} in {a}, {in_b!r} in {b}"
            raise PredictionsError(f"Label {k}", "must be the same everywhere", got, remedy)


def _same_ids(a: str, ids_a: NDArray[np.str_], b: str, ids_b: NDArray[np.str_]) -> None:
    """Refuse two sets of ids that differ, naming the first id that only one of them has."""
    if np.array_equal(ids_a, ids_b):
        return
    for present, absent, ids in ((a, b, np.setdiff1d(ids_a, ids_b)), (b, a, np.setdiff1d(ids_b, ids_a))):
        if len(ids):
            got = f"{str(ids[0])!r} is in {present} and not in {absent} ({len(ids)} such rows)"
            remedy = "Predict the missing rows or drop them everywhere."
            raise PredictionsError("The ids", "must be the same in all members", got, remedy)
