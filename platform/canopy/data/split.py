"""Splits and folds for multi-label data by iterative stratification.

The rows of the rarest label are assigned first, each to the part that lacks most of the label; frequent
labels come last, when there are still many rows to balance them. An exchange of rows between parts then
refines the counts.

Source: Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", ECML PKDD 2011.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from canopy.errors import DataError

if TYPE_CHECKING:
    from canopy.config import DataConfig
    from canopy.data.catalogue import Catalogue

MAX_KINDS, SAMPLED_KINDS = 4000, 1000
"""With more than ``MAX_KINDS`` label combinations the table of exchanges would not fit into memory; then the
exchange is limited to ``SAMPLED_KINDS`` of them, drawn at random."""
ROUNDS = 8
"""Maximum number of rounds of the exchange; each gives more weight to labels that are off."""


def assign_splits(
    targets_NK: NDArray[np.uint8],
    config: DataConfig,
    folds: int,
    groups: NDArray[np.generic] | None = None,
    given: Sequence[str] | None = None,
) -> tuple[NDArray[np.str_], NDArray[np.int8]]:
    """Assign rows to train, val and test, and the rows of train and val to folds.

    The three splits do not depend on ``folds``, so scores of runs with and without folds are comparable.

    Args:
        targets_NK: multi-hot labels, shape (N, K).
        config: fractions and seed.
        folds: number of folds of the training rows.
        groups: group of each row, shape (N,); rows of one group stay together. None for no groups.
        given: split of each row that has one, else "". A row without a split follows its group, if the
            group's other rows have one common split. A split that no row has is filled from the rows
            without a split, and also from the training rows if the former do not suffice or have too large
            groups. All other rows go to train.

    Returns:
        split: "train", "val" or "test", shape (N,).
        fold: int8, shape (N,). Training rows: 0 to ``folds`` - 1. Validation rows: 0 (selection) or 1
            (fitting). Test rows: -1.

    Raises:
        DataError: when a split or a fold would be empty.
    """
    split = known_splits(given, groups, len(targets_NK))
    rows, shares = rows_to_assign(split, config, groups)
    own, grouped = set(split.tolist()), groups is not None and len(np.unique(groups)) < len(split)
    split[split == ""] = "train"
    if shares:
        rest = max(1 - sum(shares.values()), 0.0)
        if not (rest or (split == "train").sum() - len(rows)):
            raise _too_small("train", folds, len(split), own, grouped)
        part = _part(targets_NK, rows, [rest, *shares.values()], config.seed, groups)
        split[rows] = np.array(["train", *shares])[part]
    fold = np.full(len(split), -1, np.int8)
    for name, parts in (("train", folds), ("val", 2)):
        rows = np.flatnonzero(split == name)
        fold[rows] = _part(targets_NK, rows, [1 / parts] * parts, config.seed + 1, groups)
    for name, parts in (("train", folds), ("val", 2), ("test", 1)):
        if len(np.unique(fold[split == name])) != parts:
            raise _too_small(name, parts, len(split), own, grouped)
    return split, fold


def known_splits(
    given: Sequence[str] | None, groups: NDArray[np.generic] | None, rows: int
) -> NDArray[np.str_]:
    """The known split of each row or of its group, shape (rows,); "" where neither is known."""
    split = np.array(given if given is not None else [""] * rows, "<U5")
    return split if given is None or groups is None else follow_groups(split, groups)


def rows_to_assign(
    split: NDArray[np.str_], config: DataConfig, groups: NDArray[np.generic] | None
) -> tuple[NDArray[np.int64], dict[str, float]]:
    """The rows (n,) to draw the missing splits from, and the fraction of them for each missing split."""
    size = {"val": config.val_fraction * len(split), "test": config.test_fraction * len(split)}
    wanted = {name: count for name, count in size.items() if name not in split}
    rows = np.flatnonzero(split == "")
    largest = 1
    if groups is not None and len(rows):
        largest = np.unique(groups[rows], return_counts=True)[1].max()
    if len(rows) < sum(wanted.values()) or largest > min(wanted.values(), default=largest):
        rows = np.flatnonzero((split == "") | (split == "train"))
    return rows, {name: count / max(len(rows), 1) for name, count in wanted.items()}


def stratification_warnings(
    catalogue: Catalogue, config: DataConfig, given: Sequence[str] | None = None
) -> list[str]:
    """A warning if label counts of val, its halves, test or a fold are off by more than one.

    Large groups, or few rows with many labels each, can prevent an even split. Splits of ``given`` are not
    checked.

    Args:
        catalogue: catalogue with splits and folds.
        config: fractions of the splits.
        given: split of each row that came with the data, else "".

    Returns:
        No sentence or one sentence.
    """
    all_NK = catalogue.targets_NK
    assigned, shares = rows_to_assign(
        known_splits(given, catalogue.group, len(all_NK)), config, catalogue.group
    )
    parts = [
        (name, np.flatnonzero(catalogue.split == name), share, all_NK[assigned])
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
                (abs(count - share * total), f"{part} has {count} {name} instead of {share * total:.1f}")
            )
    off = sorted((found for found in off if found[0] > 1 + 1e-6), reverse=True)
    if not off:
        return []
    more = f" and {len(off) - 3} more" if len(off) > 3 else ""
    return [f"Labels could not be split evenly: {', '.join(text for _, text in off[:3])}{more}."]


def follow_groups(split: NDArray[np.str_], groups: NDArray[np.generic]) -> NDArray[np.str_]:
    """``split`` (N,) with "" replaced by the common split of the group's other rows, if there is one."""
    _, member_N = np.unique(groups, return_inverse=True)
    known: dict[int, set[str]] = {}
    for group, name in zip(member_N.tolist(), split.tolist(), strict=True):
        if name:
            known.setdefault(group, set()).add(name)
    common = {group: names.pop() for group, names in known.items() if len(names) == 1}
    rows = zip(member_N.tolist(), split.tolist(), strict=True)
    return np.array([name or common.get(group, "") for group, name in rows], split.dtype)


def _part(
    targets_NK: NDArray[np.uint8],
    rows: NDArray[np.int64],
    fractions: Sequence[float],
    seed: int,
    groups: NDArray[np.generic] | None,
) -> NDArray[np.int64]:
    return iterative_stratification(
        targets_NK[rows], fractions, seed, None if groups is None else groups[rows]
    )


def _too_small(name: str, parts: int, rows: int, given: Collection[str], grouped: bool) -> DataError:
    """The error for a split with too few of ``rows``; ``given`` holds the splits in the data, "" for none."""
    came = name in given or "" not in given
    remedies = [f"Add images with the split {name}" if came else "Add images"]
    drawn = [f"data.{other}_fraction" for other in ("val", "test") if other not in given]
    if name == "train":
        remedies += [f"lower {' or '.join(drawn)}"] if drawn and {"", "train"}.intersection(given) else []
        remedies += ["lower folds"] if parts > 1 else []
    elif name not in given:
        remedies.append(f"raise data.{name}_fraction")
    if grouped:
        remedies.append("make the groups smaller (data.table.group, data.blocks.metres)")
    remedy = f"{', '.join(remedies[:-1])}, or {remedies[-1]}." if len(remedies) > 1 else f"{remedies[0]}."
    part = f"{name} split of {parts} parts" if parts > 1 else f"{name} split"
    return DataError("The data set", f"must be large enough for a {part}", f"{rows} rows", remedy)


def iterative_stratification(
    targets_NK: NDArray[np.uint8],
    fractions: Sequence[float],
    seed: int,
    groups: NDArray[np.generic] | None = None,
) -> NDArray[np.int64]:
    """Assign rows to parts of the given fractions, with every label as even as the rows allow.

    Args:
        targets_NK: multi-hot labels, shape (N, K).
        fractions: share of the rows for each part; their sum is 1.
        seed: seed that breaks ties; equal seeds give equal results.
        groups: group of each row, shape (N,); rows of one group go to one part.

    Returns:
        The part of each row, shape (N,).
    """
    assert abs(sum(fractions) - 1) < 1e-6, fractions
    targets_NK = np.asarray(targets_NK, np.uint8)
    rows = len(targets_NK)
    if not rows:
        return np.zeros(0, np.int64)
    member_N = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    # The absence of a label that most rows have is balanced too, as it is rarer than the label: the
    # frequent label comes last, when few rows without it would be left.
    absent_NK = 1 - targets_NK[:, targets_NK.mean(0) > 0.5]
    # The last column counts rows, so that sizes are balanced by the same rule as labels.
    features_NL = np.hstack([targets_NK, absent_NK, np.ones((rows, 1), np.uint8)])
    counts_UL = np.zeros((int(member_N.max()) + 1, features_NL.shape[1]), np.int64)
    np.add.at(counts_UL, member_N, features_NL)
    rng, fractions_P = np.random.default_rng(seed), np.asarray(fractions)
    part_U = _assign_rarest_first(counts_UL, fractions_P, rng)
    return _refine(counts_UL, fractions_P, part_U, rng)[member_N]


def _assign_rarest_first(
    counts_UL: NDArray[np.int64], fractions_P: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Assign U units (groups of rows) with counts of L features (the last: rows) to parts; shape (U,)."""
    part_U = np.full(len(counts_UL), -1)
    lack_PL = fractions_P[:, None] * counts_UL.sum(0)
    left_L = counts_UL.sum(0)
    shuffled_U = rng.permutation(len(counts_UL))
    while left_L.any():
        rarest = int(np.where(left_L > 0, left_L, np.iinfo(np.int64).max).argmin())
        waiting = shuffled_U[(part_U[shuffled_U] < 0) & (counts_UL[shuffled_U, rarest] > 0)]
        # Large groups come first; small ones can fill the gaps later.
        for unit in waiting[np.argsort(-counts_UL[waiting, -1], kind="stable")]:
            lack_P = lack_PL[:, rarest]
            most = np.flatnonzero(lack_P > lack_P.max() - 1e-9)
            part = most[0] if len(most) == 1 else most[lack_PL[most, -1].argmax()]
            part_U[unit] = part
            lack_PL[part] -= counts_UL[unit]
        left_L = counts_UL[part_U < 0].sum(0)
    return part_U


def _refine(
    counts_UL: NDArray[np.int64],
    fractions_P: NDArray[np.float64],
    part_U: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Improve ``part_U`` until every count is within one of its ideal, or no single exchange helps.

    Units with equal counts form a kind. The exchange decides how many units of each kind a part gets; which
    units is then random. Features that are off by more than one get more weight in the next round.
    """
    kind_KL, kind_U = np.unique(counts_UL, axis=0, return_inverse=True)
    parts, kinds = len(fractions_P), len(kind_KL)
    has_PK = np.bincount(part_U * kinds + kind_U, minlength=parts * kinds).reshape(parts, kinds)
    surplus_PL = has_PK @ kind_KL - fractions_P[:, None] * counts_UL.sum(0)
    some_k = np.arange(kinds) if kinds <= MAX_KINDS else rng.choice(kinds, SAMPLED_KINDS, replace=False)
    ideal_PL = has_PK[:, some_k] @ kind_KL[some_k] - surplus_PL
    has_PK[:, some_k] = _best_exchange(has_PK[:, some_k], kind_KL[some_k], ideal_PL)
    order = np.lexsort((rng.permutation(len(kind_U)), kind_U))
    out_U = np.empty_like(part_U)
    out_U[order] = np.repeat(np.tile(np.arange(parts), kinds), has_PK.T.ravel())
    return out_U


def _best_exchange(
    has_PK: NDArray[np.int64], kind_KL: NDArray[np.int64], ideal_PL: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The number of units of each kind for each part after up to ``ROUNDS`` rounds of exchanges."""
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
    """The units of each kind per part after exchanges of units while these lower the objective.

    The objective is the weighted sum of squared surpluses. Exchanging d = unit of part a - unit of part b
    (either may be empty) lowers it by 2 d.(surplus_a - surplus_b) - 2 d.d; ``gain`` is half of that.
    """
    kind_KL = np.vstack([kind_KL, np.zeros_like(kind_KL[:1])])  # the last kind is the empty unit
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
        _, a, b, leaving, coming = best
        if a == b:
            return has_PK[:, :-1]
        for part, sign in ((a, -1), (b, 1)):
            has_PK[part, leaving] += sign
            has_PK[part, coming] -= sign
            surplus_PL[part] += sign * (kind_KL[leaving] - kind_KL[coming])
        has_PK[:, -1] = 1
