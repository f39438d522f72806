"""Fitting shard by shard, as tasks or in turn, equals fitting on all rows to the last bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs.ensemble import main

from canopy.config import EnsembleConfig
from canopy.ensemble import fit as fit_module
from canopy.ensemble import shards as shards_module
from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.logistic import sigmoid
from canopy.ensemble.model import Ensemble, to_json
from canopy.ensemble.shards import fit_sharded, shards_of
from canopy.errors import PredictionsError
from canopy.labels import LabelSet
from canopy.predictions.io import write_predictions
from canopy.predictions.predictions import Predictions

CONFIG = EnsembleConfig(folds=4, bags=2, bootstrap=100, search_rows=256)


def members(rows: int) -> dict[str, Predictions]:
    rng = np.random.default_rng(0)
    signal = 2 * rng.normal(size=(rows, 3)) - [0, 1, 3]
    targets = (rng.random((rows, 3)) < sigmoid(signal)).astype(np.uint8)
    ids = np.array([f"chip{n}" for n in rng.permutation(rows)])
    return {
        name: Predictions(
            ids,
            sigmoid(signal + noise * rng.normal(size=(rows, 3))).astype(np.float32),
            LabelSet(("a", "b", "c")),
            targets_NK=targets,
        )
        for name, noise in (("good", 1.2), ("fair", 1.4))
    }


def cut(whole: dict[str, Predictions], folder: Path, shards: int) -> dict[str, list[str]]:
    files: dict[str, list[str]] = {name: [] for name in whole}
    for name, member in whole.items():
        for i in range(shards):
            path = folder / f"{name}-{i}.parquet"
            write_predictions(path, member.rows(np.arange(i, len(member), shards)))
            files[name].append(str(path))
    return files


def plain(ensemble: Ensemble) -> Any:
    return json.loads(json.dumps(to_json(ensemble)))


@pytest.mark.parametrize("rows", [400, 1500])  # below and above the refitted rows
@pytest.mark.parametrize(("objective", "combination"), [("mixed", "auto"), ("f2", "ridge_two_level")])
def test_shards_give_the_same_ensemble(
    rows: int, objective: str, combination: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (fit_module, shards_module):
        monkeypatch.setattr(module, "REFIT_FACTOR", 2)
    whole = members(rows)
    config = CONFIG.model_copy(update={"objective": objective, "combination": combination})
    sharded = fit_sharded(shards_of(cut(whole, tmp_path, 4)), config)
    assert plain(sharded) == plain(fit_ensemble(whole, config))
    assert sharded.fitted_on is not None
    assert sharded.fitted_on.rows == rows


@pytest.mark.usefixtures("ray_here")
def test_the_job_in_shards_as_ray_tasks_gives_the_same_file(tmp_path: Path) -> None:
    files = cut(members(3000), tmp_path, 3)  # above REFIT_FACTOR x search_rows, so that every pass runs
    given = [f"{name}={path}" for name, paths in files.items() for path in paths]
    options = ["--ensemble.folds", "4", "--ensemble.bootstrap", "100", "--ensemble.search-rows", "256"]
    texts = []
    for above_mb in ("0", "1000"):
        out = tmp_path / above_mb
        arguments = ["--fitting", *given, "--out", str(out), *options, "--ensemble.shard-above-mb", above_mb]
        assert main(arguments) == 0
        texts.append((out / "ensemble.json").read_text())
    assert texts[0] == texts[1]


def test_shards_that_do_not_fit_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (fit_module, shards_module):
        monkeypatch.setattr(module, "REFIT_FACTOR", 2)
    files = cut(members(1500), tmp_path, 3)
    with pytest.raises(PredictionsError, match="equally many shards"):
        shards_of({**files, "fair": files["fair"][:2]})
    with pytest.raises(PredictionsError, match="is in fair and not in good"):
        fit_sharded([{"good": files["good"][0], "fair": files["fair"][1]}], CONFIG)
    both = shards_of(files)
    with pytest.raises(PredictionsError, match="'fair' must be in every shard"):
        fit_sharded([both[0], {"good": files["good"][1]}], CONFIG)
    with pytest.raises(
        PredictionsError, match=r"of earlier shards of fair and .*fair-0\.parquet must differ"
    ):
        fit_sharded([*both, both[0]], CONFIG)
    bare = {name: replace(member, targets_NK=None) for name, member in members(30).items()}
    with pytest.raises(PredictionsError, match="Add columns target:LABEL"):
        fit_sharded(shards_of(cut(bare, tmp_path, 1)), CONFIG)
    with pytest.raises(PredictionsError, match="at least one shard"):
        fit_sharded([], CONFIG)
