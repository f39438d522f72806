"""Splits and folds for multi-label data by iterative stratification.

Source: Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD 2011.
The rarest label is dealt out first, each of its rows to the part that still lacks most of it; frequent
labels come last, when there are still many rows to even them out with.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from canopy.errors import DataError

if TYPE_CHECKING:
    from canopy.config import DataConfig
    from canopy.data.catalogue import Catalogue

MOST_KINDS, SOME_KINDS = 4000, 1000
"""Above so many different label combinations, whose table of exchanges would not fit, the final exchange is
between some of them, drawn at random."""
ROUNDS = 8


def assign_splits(
    targets_NK: NDArray[np.uint8],
    config: DataConfig,
    folds: int,
    groups: NDArray[np.generic] | None = None,
    given: Sequence[str] | None = None,
) -> tuple[NDArray[np.str_], NDArray[np.int8]]:
    """Deal rows out to train, val and test, and train and val further to folds.

    The three splits do not depend on ``folds``, so that scores of runs with and without folds compare.

    Args:
        targets_NK: multi-hot labels, shape (N, K).
        config: gives the fractions and the seed.
        folds: number of folds of the training rows.
        groups: rows with one value stay together, shape (N,); None lets every row go alone.
        given: the split of rows that have one already, "" of others. Those follow their group, where the
            rows of it that have one agree. Parts that nobody was given to are taken from the others, and
            where those do not suffice, or come in too large groups, from the training rows, too; what is
            left goes to train.

    Returns:
        split: "train", "val" or "test", shape (N,).
        fold: int8, shape (N,). Training rows: 0 to ``folds - 1``. Validation rows: 0 (selection) or 1
            (fitting). Test rows: -1.

    Raises:
        DataError: when a part would be empty.
    """
    split = known_splits(given, groups, len(targets_NK))
    rows, shares = to_deal_out(split, config, groups)
    split[split == ""] = "train"
    if shares:
        rest = max(1 - sum(shares.values()), 0.0)
        _refuse_empty(rest or (split == "train").sum() - len(rows), "train split", len(split))
        part = _part(targets_NK, rows, [rest, *shares.values()], config.seed, groups)
        split[rows] = np.array(["train", *shares])[part]
    fold = np.full(len(split), -1, np.int8)
    for name, parts in (("train", folds), ("val", 2)):
        rows = np.flatnonzero(split == name)
        fold[rows] = _part(targets_NK, rows, [1 / parts] * parts, config.seed + 1, groups)
    for name, parts in (("train", folds), ("val", 2), ("test", 1)):
        there = len(np.unique(fold[split == name]))
        _refuse_empty(
            there == parts, f"{name} split of {parts} parts" if parts > 1 else f"{name} split", len(split)
        )
    return split, fold


def known_splits(
    given: Sequence[str] | None, groups: NDArray[np.generic] | None, rows: int
) -> NDArray[np.str_]:
    """The splits that rows have before any is dealt out, their groups' included; "" of others."""
    split = np.array(given if given is not None else [""] * rows, "<U5")
    return split if given is None or groups is None else follow_groups(split, groups)


def to_deal_out(
    split: NDArray[np.str_], config: DataConfig, groups: NDArray[np.generic] | None
) -> tuple[NDArray[np.int64], dict[str, float]]:
    """The rows from which parts that nobody was given to are taken, and the share of them for each part."""
    size = {"val": config.val_fraction * len(split), "test": config.test_fraction * len(split)}
    wanted = {name: count for name, count in size.items() if name not in split}
    rows = np.flatnonzero(split == "")
    largest = 1
    if groups is not None and len(rows):
        largest = np.unique(groups[rows], return_counts=True)[1].max()
    if len(rows) < sum(wanted.values()) or largest > min(wanted.values(), default=largest):
        rows = np.flatnonzero((split == "") | (split == "train"))
    return rows, {name: count / max(len(rows), 1) for name, count in wanted.items()}


def check_evenness(catalogue: Catalogue, config: DataConfig, given: Sequence[str] | None = None) -> list[str]:
    """A warning, one sentence, when labels of val, its halves, test or a fold are over one off their share.

    Only for parts that were dealt out here, of the rows that they were dealt out of, not for those among
    ``given``, the rows' own splits: large groups, or few rows with many labels each, may leave no way to be
    even.
    """
    all_NK = catalogue.targets_NK
    dealt, shares = to_deal_out(known_splits(given, catalogue.group, len(all_NK)), config, catalogue.group)
    parts = [
        (name, np.flatnonzero(catalogue.split == name), share, all_NK[dealt])
        for name, share in shares.items()
    ]
    folds = [("fold", catalogue.rows("train", fold=n), n, catalogue.folds) for n in range(catalogue.folds)]
    folds += [("half of val", catalogue.rows("val", fold=n), n, 2) for n in range(2)]
    for called, rows, n, count in folds:
        of_NK = all_NK[catalogue.rows("train" if called == "fold" else "val")]
        parts.append((f"{called} {n}", rows, 1 / count, of_NK))
    off: list[tuple[float, str]] = []
    for part, rows, share, of_NK in parts:
        for name, count, total in zip(catalogue.labels.names, all_NK[rows].sum(0), of_NK.sum(0), strict=True):
            off.append(
                (abs(count - share * total), f"{part} has {count} {name} in place of {share * total:.1f}")
            )
    off = sorted((found for found in off if found[0] > 1 + 1e-6), reverse=True)
    if not off:
        return []
    more = f" and {len(off) - 3} more" if len(off) > 3 else ""
    return [f"Labels could not be dealt out evenly: {', '.join(words for _, words in off[:3])}{more}."]


def follow_groups(split: NDArray[np.str_], groups: NDArray[np.generic]) -> NDArray[np.str_]:
    """``split`` with "" replaced by the one split that other rows of the group have, where it is one."""
    _, member_N = np.unique(groups, return_inverse=True)
    known: dict[int, set[str]] = {}
    for group, name in zip(member_N.tolist(), split.tolist(), strict=True):
        if name:
            known.setdefault(group, set()).add(name)
    told = {group: names.pop() for group, names in known.items() if len(names) == 1}
    rows = zip(member_N.tolist(), split.tolist(), strict=True)
    return np.array([name or told.get(group, "") for group, name in rows], split.dtype)


def _part(
    targets_NK: NDArray[np.uint8],
    rows: NDArray[np.int64],
    fractions: Sequence[float],
    seed: int,
    groups: NDArray[np.generic] | None,
) -> NDArray[np.int64]:
    return iterative_split(targets_NK[rows], fractions, seed, None if groups is None else groups[rows])


def _refuse_empty(enough: float, part: str, rows: int) -> None:
    if not enough:
        remedy = "Add images, lower folds, raise data.val_fraction and data.test_fraction, or split groups."
        raise DataError("The data set", f"must be large enough for a {part}", f"{rows} rows", remedy)


def iterative_split(
    targets_NK: NDArray[np.uint8],
    fractions: Sequence[float],
    seed: int,
    groups: NDArray[np.generic] | None = None,
) -> NDArray[np.int64]:
    """Deal rows out to parts of the given fractions, every label as evenly as the rows allow.

    Args:
        targets_NK: multi-hot labels, shape (N, K).
        fractions: share of the rows of each part; they sum to 1.
        seed: breaks ties; one seed gives one result.
        groups: rows with one value go to one part, shape (N,).

    Returns:
        The part of each row, shape (N,).
    """
    assert abs(sum(fractions) - 1) < 1e-6, fractions
    targets_NK = np.asarray(targets_NK, np.uint8)
    rows = len(targets_NK)
    if not rows:
        return np.zeros(0, np.int64)
    member_N = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    # A label that most rows have is evened out through its absence too, the rarer of the two: dealt last
    # on its own, there would be too few rows without it left.
    absent_NK = 1 - targets_NK[:, targets_NK.mean(0) > 0.5]
    # The last column counts rows, so that sizes are balanced by the same rule as labels.
    things_NL = np.hstack([targets_NK, absent_NK, np.ones((rows, 1), np.uint8)])
    counts_UL = np.zeros((int(member_N.max()) + 1, things_NL.shape[1]), np.int64)
    np.add.at(counts_UL, member_N, things_NL)
    rng, fractions_P = np.random.default_rng(seed), np.asarray(fractions)
    part_U = _deal(counts_UL, fractions_P, rng)
    return _even_out(counts_UL, fractions_P, part_U, rng)[member_N]


def _deal(
    counts_UL: NDArray[np.int64], fractions_P: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """The part of each of U units, of which each brings some of L things (the last: rows)."""
    part_U = np.full(len(counts_UL), -1)
    lack_PL = fractions_P[:, None] * counts_UL.sum(0)
    left_L = counts_UL.sum(0)
    shuffled_U = rng.permutation(len(counts_UL))
    while left_L.any():
        rarest = int(np.where(left_L > 0, left_L, np.iinfo(np.int64).max).argmin())
        waiting = shuffled_U[(part_U[shuffled_U] < 0) & (counts_UL[shuffled_U, rarest] > 0)]
        # Large groups first: small ones can still fill what they leave open.
        for unit in waiting[np.argsort(-counts_UL[waiting, -1], kind="stable")]:
            lack_P = lack_PL[:, rarest]
            most = np.flatnonzero(lack_P > lack_P.max() - 1e-9)
            part = most[0] if len(most) == 1 else most[lack_PL[most, -1].argmax()]
            part_U[unit] = part
            lack_PL[part] -= counts_UL[unit]
        left_L = counts_UL[part_U < 0].sum(0)
    return part_U


def _even_out(
    counts_UL: NDArray[np.int64],
    fractions_P: NDArray[np.float64],
    part_U: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """``part_U`` improved until every count is within one of ideal, or no single exchange helps.

    Units that bring the same are one kind, so only how many of each kind a part has needs improving; who
    of a kind goes where is then drawn. Things that stay off by more than one weigh more in the next round.
    """
    kind_KL, kind_U = np.unique(counts_UL, axis=0, return_inverse=True)
    parts, kinds = len(fractions_P), len(kind_KL)
    has_PK = np.bincount(part_U * kinds + kind_U, minlength=parts * kinds).reshape(parts, kinds)
    surplus_PL = has_PK @ kind_KL - fractions_P[:, None] * counts_UL.sum(0)
    some_k = np.arange(kinds) if kinds <= MOST_KINDS else rng.choice(kinds, SOME_KINDS, replace=False)
    ideal_PL = has_PK[:, some_k] @ kind_KL[some_k] - surplus_PL
    has_PK[:, some_k] = _best_exchange(has_PK[:, some_k], kind_KL[some_k], ideal_PL)
    order = np.lexsort((rng.permutation(len(kind_U)), kind_U))
    out_U = np.empty_like(part_U)
    out_U[order] = np.repeat(np.tile(np.arange(parts), kinds), has_PK.T.ravel())
    return out_U


def _best_exchange(
    has_PK: NDArray[np.int64], kind_KL: NDArray[np.int64], ideal_PL: NDArray[np.float64]
) -> NDArray[np.int64]:
    """How many units of each kind each part should have, of those that the parts have together."""
    weight_L = np.ones(kind_KL.shape[1])
    best = (np.inf, has_PK)
    for _ in range(ROUNDS):
        has_PK = _exchange(has_PK, kind_KL.astype(float), ideal_PL, weight_L)
        off_L = np.abs(has_PK @ kind_KL - ideal_PL).max(0)
        best = min(best, (off_L.max(), has_PK), key=lambda pair: pair[0])
        if off_L.max() <= 1:
            break
        weight_L[off_L > 1] *= 2
    return best[1]


def _exchange(
    has_PK: NDArray[np.int64],
    kind_KL: NDArray[np.float64],
    ideal_PL: NDArray[np.float64],
    weight_L: NDArray[np.float64],
) -> NDArray[np.int64]:
    """How many units of each kind each part has, after moving or swapping two while that helps.

    The measure is the weighted sum of squared surpluses. Exchanging d = unit of part a - unit of part b
    (either may be nothing) lowers it by 2 d.(surplus_a - surplus_b) - 2 d.d; half of that is ``gain``.
    """
    kind_KL = np.vstack([kind_KL, np.zeros_like(kind_KL[:1])])  # the last kind is nothing
    weighted_KL = kind_KL * weight_L
    dots_KK = weighted_KL @ kind_KL.T
    squares_K = dots_KK.diagonal()
    has_PK = np.hstack([has_PK, np.ones_like(has_PK[:, :1])])
    surplus_PL = has_PK @ kind_KL - ideal_PL
    while True:
        best = (1e-9, 0, 0, 0, 0)
        for a, b in itertools.combinations(range(len(has_PK)), 2):
            pull_K = weighted_KL @ (surplus_PL[a] - surplus_PL[b])
            out, back = np.flatnonzero(has_PK[a]), np.flatnonzero(has_PK[b])
            gain = (pull_K - squares_K)[out, None] - (pull_K + squares_K)[back]
            gain += 2 * dots_KK[np.ix_(out, back)]
            u, v = np.unravel_index(gain.argmax(), gain.shape)
            best = max(best, (float(gain[u, v]), a, b, int(out[u]), int(back[v])))
        _, a, b, goes, comes = best
        if a == b:
            return has_PK[:, :-1]
        for part, sign in ((a, -1), (b, 1)):
            has_PK[part, goes] += sign
            has_PK[part, comes] -= sign
            surplus_PL[part] += sign * (kind_KL[goes] - kind_KL[comes])
        has_PK[:, -1] = 1
