"""Preparation of the search: duplicates, groups, refusals, and a hash that ignores the order of rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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
from canopy.errors import DataError, PredictionsError
from canopy.predictions.io import read_predictions
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
    unknown = FAST.model_copy(update={"exclusive": ("half,ocean",)})
    with pytest.raises(DataError, match=r"^ensemble\.exclusive must name labels of the data\. Got: ocean\."):
        exclusive_groups(unknown, LABELS)


@pytest.mark.parametrize(
    ("rows", "folds", "remedy"),
    [
        (19, 5, r"Fit on 20 rows or more, or set ensemble\.folds to 4\."),
        (15, 5, r"Fit on 20 rows or more, or on 16 with ensemble\.folds 4\."),
        (15, 4, r"Got: 15\. Fit on 16 rows or more\.$"),
    ],
)
def test_the_remedy_for_too_few_rows_suffices(rows: int, folds: int, remedy: str) -> None:
    config = EnsembleConfig(folds=folds)
    with pytest.raises(PredictionsError, match=remedy):
        targets_of(align(world(rows)), config)
    assert targets_of(align(world(4 * folds)), config).shape == (4 * folds, 4)
    assert targets_of(align(world(16)), EnsembleConfig(folds=4)).shape == (16, 4)


def test_the_ways_to_add_targets_are_named(tmp_path: Path) -> None:
    bare = {name: replace(member, targets_NK=None) for name, member in world(20).items()}
    with pytest.raises(
        PredictionsError, match=r"Add columns target:LABEL .* or an array targets to one npz or Pa"
    ):
        targets_of(align(bare), EnsembleConfig())
    header = ",".join(["id", *LABELS.names, *(f"target:{name}" for name in LABELS.names)])
    (tmp_path / "a.csv").write_text(f"{header}\nx,0,0,0,1,0,0,0,1\n")
    np.savez(
        tmp_path / "a.npz", id=["x"], labels=LABELS.names, probs=np.zeros((1, 4)), targets=[[0, 0, 0, 1]]
    )
    lists = {"id": ["x"], "probs": [[0.0] * 4], "targets": [[0, 0, 0, 1]]}
    table = pa.table(lists).replace_schema_metadata({"labels": json.dumps(LABELS.names)})
    pq.write_table(table, tmp_path / "a.parquet")
    for name in ("a.csv", "a.npz", "a.parquet"):
        targets_NK = read_predictions(tmp_path / name).targets_NK
        assert targets_NK is not None, name
        assert targets_NK.tolist() == [[0, 0, 0, 1]]


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
