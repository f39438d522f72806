"""Preparation of the search: duplicates, groups, refusals, and a hash that ignores the order of rows."""

from __future__ import annotations

import numpy as np
import pytest
from tests.ensemble.worlds import FAST, LABELS, world

from canopy.config import EnsembleConfig
from canopy.ensemble.search_inputs import (
    data_hash,
    drop_duplicates,
    exclusive_groups,
    sample_rows,
    targets_of,
)
from canopy.errors import PredictionsError
from canopy.predictions.predictions import align


def test_of_duplicates_the_first_by_name_is_kept() -> None:
    members = world(40)
    kept, left_out = drop_duplicates(align({**members, "a": members["m1"]}))
    assert list(kept) == ["a", "m0", "m2"]
    assert left_out == {"m1": "the same as a"}


def test_groups_are_columns_and_overlaps_are_refused() -> None:
    config = FAST.model_copy(update={"exclusive": ("rare, half",)})
    assert exclusive_groups(config, LABELS) == ((3, 1),)
    for groups in (("half",), ("half,rare", "rare,some"), ("half,half",)):
        with pytest.raises(PredictionsError, match="two or more labels, each in one group only"):
            exclusive_groups(FAST.model_copy(update={"exclusive": groups}), LABELS)


@pytest.mark.parametrize(
    ("rows", "folds", "remedy"),
    [(19, 5, r"Fit on more rows, or set ensemble\.folds to 4\."), (15, 4, r"Got: 15\. Fit on more rows\.$")],
)
def test_the_remedy_for_too_few_rows_suffices(rows: int, folds: int, remedy: str) -> None:
    config = EnsembleConfig(folds=folds)
    with pytest.raises(PredictionsError, match=remedy):
        targets_of(align(world(rows)), config)
    assert targets_of(align(world(4 * folds)), config).shape == (4 * folds, 4)


def test_the_sample_and_the_hash_do_not_depend_on_the_order_of_rows() -> None:
    members = world(300)
    order = np.random.default_rng(0).permutation(300)
    shuffled = {name: p.rows(order) for name, p in members.items()}
    assert data_hash(members) == data_hash(shuffled)
    targets = members["m0"].targets_NK
    assert targets is not None
    samples = [
        sample_rows(given, t, FAST, 100) for given, t in ((members, targets), (shuffled, targets[order]))
    ]
    assert len(samples[0].rows) == 100
    assert set(samples[0].ids_N.tolist()) == set(samples[1].ids_N.tolist())
    assert dict(zip(samples[0].ids_N, samples[0].fold_N, strict=True)) == dict(
        zip(samples[1].ids_N, samples[1].fold_N, strict=True)
    )
