"""Splits and folds: even labels, whole groups, reproducible results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from canopy.config import DataConfig, derive
from canopy.data.catalogue import Catalogue
from canopy.data.split import MAX_KINDS, assign_splits, iterative_stratification, stratification_warnings
from canopy.errors import DataError
from canopy.labels import LabelSet

Targets = NDArray[np.uint8]


def long_tail(rows: int, labels: int, seed: int = 0) -> Targets:
    """Labels of 80% down to half a per cent, correlated through a hidden scene type."""
    rng = np.random.default_rng(seed)
    rate_K = np.geomspace(0.8, 0.005, labels)
    kind_N1 = rng.random((rows, 1))
    return (rng.random((rows, labels)) < np.clip(2 * kind_N1 * rate_K, 0, 1)).astype(np.uint8)


def surplus(
    targets_NK: Targets, part_N: NDArray[np.int64], fractions: Sequence[float]
) -> NDArray[np.float64]:
    """Difference of each part's positives and rows from their ideal, shape (parts, K + 1)."""
    things_NL = np.hstack([targets_NK, np.ones((len(targets_NK), 1), np.uint8)]).astype(int)
    counts_PL = np.array([things_NL[part_N == p].sum(0) for p in range(len(fractions))])
    return counts_PL - np.outer(fractions, things_NL.sum(0))


@pytest.mark.parametrize("fractions", [(0.65, 0.15, 0.2), (0.2,) * 5, (0.5, 0.5)])
@pytest.mark.parametrize(("rows", "labels"), [(400, 17), (3000, 17), (1000, 5), (2000, 40)])
def test_every_count_is_within_one_of_ideal(rows: int, labels: int, fractions: tuple[float, ...]) -> None:
    targets_NK = long_tail(rows, labels)
    part_N = iterative_stratification(targets_NK, fractions, seed=0)
    assert np.abs(surplus(targets_NK, part_N, fractions)).max() <= 1 + 1e-9


def test_a_random_split_is_not_even() -> None:
    targets_NK = long_tail(3000, 17)
    part_N = np.random.default_rng(0).choice(3, 3000, p=(0.65, 0.15, 0.2))
    assert np.abs(surplus(targets_NK, part_N, (0.65, 0.15, 0.2))).max() > 10


def test_the_seed_determines_the_result() -> None:
    targets_NK = long_tail(500, 8)
    first, again, other = (iterative_stratification(targets_NK, (0.7, 0.3), seed) for seed in (3, 3, 4))
    assert (first == again).all()
    assert 0.2 < (first != other).mean() < 0.8


def test_parts_do_not_follow_the_order_of_the_rows() -> None:
    part_N = iterative_stratification(np.ones((1000, 1), np.uint8), (0.5, 0.5), seed=0)
    assert abs(part_N[:500].mean() - 0.5) < 0.08


def test_groups_stay_together_and_counts_stay_even() -> None:
    rng = np.random.default_rng(0)
    targets_NK = long_tail(2000, 12)
    groups = rng.integers(0, 900, 2000)
    groups[:60] = 1000  # one large scene
    fractions = (0.6, 0.2, 0.2)
    part_N = iterative_stratification(targets_NK, fractions, 0, groups)
    for group in np.unique(groups):
        assert len(np.unique(part_N[groups == group])) == 1
    assert np.abs(surplus(targets_NK, part_N, fractions)).max() <= 1 + 1e-9


def test_rows_without_labels_and_labels_without_rows() -> None:
    targets_NK = np.zeros((100, 3), np.uint8)
    targets_NK[:4, 0] = 1
    part_N = iterative_stratification(targets_NK, (0.5, 0.5), 0)
    assert targets_NK[part_N == 0].sum(0).tolist() == [2, 0, 0]
    assert (part_N == 0).sum() == 50


def test_forty_thousand_rows_take_seconds() -> None:
    targets_NK = long_tail(40_000, 17)
    fractions = (0.65, 0.15, 0.2)
    part_N = iterative_stratification(targets_NK, fractions, 0)
    assert np.abs(surplus(targets_NK, part_N, fractions)).max() <= 1 + 1e-9


def test_nearly_as_many_label_sets_as_rows_are_split_evenly() -> None:
    targets_NK, fractions = long_tail(10_000, 60), (0.2,) * 5
    assert len(np.unique(targets_NK, axis=0)) > MAX_KINDS
    part_N = iterative_stratification(targets_NK, fractions, seed=0)
    assert np.abs(surplus(targets_NK, part_N, fractions)).max() <= 1 + 1e-9


def test_splits_and_folds() -> None:
    targets_NK = long_tail(4000, 17)
    split, fold = assign_splits(targets_NK, DataConfig(seed=1), folds=5)
    for name, share in (("train", 0.65), ("val", 0.15), ("test", 0.2)):
        assert abs((split == name).sum() - share * 4000) <= 1
    train, val = np.flatnonzero(split == "train"), np.flatnonzero(split == "val")
    assert set(fold[train]) == {0, 1, 2, 3, 4}
    assert set(fold[val]) == {0, 1}
    assert set(fold[split == "test"]) == {-1}
    assert fold.dtype == np.int8
    assert np.abs(surplus(targets_NK[train], fold[train].astype(int), [0.2] * 5)).max() <= 1 + 1e-9
    assert np.abs(surplus(targets_NK[val], fold[val].astype(int), [0.5] * 2)).max() <= 1 + 1e-9


def test_labels_that_cannot_be_split_evenly_are_named() -> None:
    targets_NK = long_tail(400, 4)
    config = DataConfig(val_fraction=0.25, test_fraction=0.25)
    names = [str(n) for n in range(400)]

    def warnings(group: NDArray[np.str_]) -> list[str]:
        split, fold = assign_splits(targets_NK, config, 2, group)
        labels = LabelSet(("a", "b", "c", "d"))
        return stratification_warnings(
            Catalogue(names, names, targets_NK, split, fold, group, labels), config
        )

    assert warnings(np.array(names)) == []
    scene = np.array(["one" if row[1] else name for row, name in zip(targets_NK, names, strict=True)])
    total = int(targets_NK[:, 1].sum())
    (sentence,) = warnings(scene)  # all of b are in one scene, so only train has any
    assert sentence.startswith("Labels could not be split evenly: ")
    assert f"has {total} b instead of {total / 2:.1f}" in sentence, sentence


def test_known_splits_are_not_checked_but_their_folds_are() -> None:
    targets_NK = np.zeros((400, 2), np.uint8)
    targets_NK[:, 0], targets_NK[:60, 1] = 1, 1
    names, labels, config = [str(n) for n in range(400)], LabelSet(("a", "b")), DataConfig()
    own = ["test"] * 20 + ["val"] * 100 + ["train"] * 280  # 40 of b are in val, in one scene
    scene = np.array(["one" if 20 <= n < 60 else str(n) for n in range(400)])
    split, fold = assign_splits(targets_NK, config, 2, scene, own)
    catalogue = Catalogue(names, names, targets_NK, split, fold, scene, labels)
    (sentence,) = stratification_warnings(catalogue, config, own)
    assert "half of val 0 has" in sentence
    assert "instead of 20.0" in sentence
    assert " test has" not in sentence
    assert "fold" not in sentence


def test_a_part_is_compared_with_the_rows_that_could_fill_it() -> None:
    """Most of b is in the test rows, whose split is known: val can have no share of it."""
    targets_NK = np.zeros((400, 2), np.uint8)
    targets_NK[:, 0], targets_NK[:40, 1], targets_NK[200:220, 1] = 1, 1, 1
    own = ["test"] * 100 + [""] * 300
    names, labels, config = [str(n) for n in range(400)], LabelSet(("a", "b")), DataConfig()
    split, fold = assign_splits(targets_NK, config, 2, None, own)
    assert int(targets_NK[split == "val", 1].sum()) == 4
    catalogue = Catalogue(names, names, targets_NK, split, fold, np.array(names), labels)
    assert stratification_warnings(catalogue, config, own) == []


def test_the_splits_do_not_depend_on_the_number_of_folds() -> None:
    targets_NK = long_tail(1000, 6)
    one, five = (assign_splits(targets_NK, DataConfig(), folds)[0] for folds in (1, 5))
    assert (one == five).all()


def test_folds_of_one_model_leave_every_training_row_in_fold_0() -> None:
    split, fold = assign_splits(long_tail(1000, 6), DataConfig(), folds=1)
    assert set(fold[split == "train"]) == {0}


def test_known_splits_are_kept_and_missing_ones_are_taken_from_train() -> None:
    targets_NK = long_tail(1000, 6)
    given = ["test" if n % 4 == 0 else "train" if n % 4 == 1 else "" for n in range(1000)]
    split, fold = assign_splits(targets_NK, DataConfig(), 2, given=given)
    assert (np.flatnonzero(split == "test") == np.arange(0, 1000, 4)).all()
    assert abs((split == "val").sum() - 150) <= 1  # of all rows, not of those left
    assert set(fold[split == "train"]) == {0, 1}
    assert (split[1::4] == "train").all(), "rows that were given to train stay there while others suffice"
    few = ["train" if n < 900 else "" for n in range(1000)]
    split, _ = assign_splits(targets_NK, DataConfig(), 2, given=few)
    assert abs((split == "test").sum() - 200) <= 1
    one_flight = np.array(["flight" if n >= 900 else str(n) for n in range(1000)])
    split, _ = assign_splits(
        targets_NK, DataConfig(val_fraction=0.05, test_fraction=0.05), 2, one_flight, few
    )
    assert abs((split == "val").sum() - 50) <= 1, "of one flight alone no two parts can be made"
    whole = ["train"] * 600 + ["val"] * 200 + ["test"] * 200
    assert assign_splits(targets_NK, DataConfig(), 2, given=whole)[0].tolist() == whole


def test_rows_without_a_split_follow_their_group() -> None:
    """A near-duplicate of a test image is not trained on."""
    groups = np.array([f"g{n // 3}" for n in range(300)])
    given = [("test" if n < 60 else "train") if n % 3 == 0 else "" for n in range(300)]
    given[3:6] = "train", "test", ""  # torn already: nothing can be kept together
    split, _ = assign_splits(long_tail(300, 4), DataConfig(), 2, groups, given)
    whole = np.setdiff1d(np.arange(0, 300, 3), [3])
    assert (split[whole] == split[whole + 1]).all()
    assert (split[whole] == split[whole + 2]).all()
    assert set(split[:60]) == {"test", "train"}
    assert (split[6:60] == "test").all()
    assert abs((split == "val").sum() - 45) <= 3


def test_groups_hold_over_splits_and_folds() -> None:
    groups = np.array([f"scene{n // 3}" for n in range(1200)])
    split, fold = assign_splits(long_tail(1200, 6), DataConfig(), 3, groups)
    place = np.char.add(split, fold.astype(str)).reshape(-1, 3)
    assert (place == place[:, :1]).all()


@pytest.mark.parametrize(
    ("rows", "folds", "given", "part", "remedy"),
    [
        (
            8,
            7,
            None,
            "train split of 7",
            "images, lower data.val_fraction or data.test_fraction, or lower folds.",
        ),
        (1, 1, None, "split", "images, or raise data.val_fraction."),
        (9, 1, None, "val split of 2", "images, or raise data.val_fraction."),
        (10, 1, ["val"] * 5 + ["test"] * 5, "train split", "images with the split train."),
        (10, 1, ["val"] + [""] * 9, "val split of 2", "images with the split val."),
    ],
)
def test_too_few_rows_are_one_clear_error(
    rows: int, folds: int, given: list[str] | None, part: str, remedy: str
) -> None:
    with pytest.raises(DataError, match=f"must be large enough for a .*{part}.* Got: {rows} rows") as error:
        assign_splits(np.ones((rows, 2), np.uint8), DataConfig(), folds, given=given)
    assert str(error.value).endswith(f" Add {remedy}")


def test_the_remedies_for_too_few_rows_suffice() -> None:
    targets_NK = np.ones((9, 2), np.uint8)
    assign_splits(targets_NK, DataConfig(val_fraction=0.3), 1)
    groups = np.repeat(["a", "b", "c"], 3)
    with pytest.raises(
        DataError, match=r"or make the groups smaller \(data\.table\.group, data\.blocks\.metres"
    ):
        assign_splits(targets_NK, DataConfig(val_fraction=0.3), 1, groups)
    tenths = DataConfig(val_fraction=0.4, test_fraction=0.4)
    with pytest.raises(DataError, match="a train split of 2 parts"):
        assign_splits(targets_NK[:5], tenths, 2)
    assign_splits(targets_NK[:5], derive(tenths, test_fraction=0.2), 2)
