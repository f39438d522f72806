"""From files of any origin to a directory that holds everything."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from canopy import metrics
from canopy.config import EnsembleConfig
from canopy.ensemble.logistic import sigmoid
from canopy.ensemble.model import Ensemble
from canopy.ensemble.predictions import Predictions, read_predictions, write_predictions
from canopy.ensemble.run import members_of, run_ensemble
from canopy.errors import PredictionsError
from canopy.labels import LabelSet

CONFIG = EnsembleConfig(folds=3, bags=2, bootstrap=100)
LABELS = LabelSet(("a", "b"))


def member(rows: int, seed: int, noise: float) -> Predictions:
    """Equal seeds give equal rows and targets; the noise is the member's own."""
    rng = np.random.default_rng(seed)
    signal = 2 * rng.normal(size=(rows, 2)) - [0, 1.5]
    targets = (rng.random((rows, 2)) < sigmoid(signal)).astype(np.uint8)
    heard = signal + noise * np.random.default_rng(int(100 * noise) + seed).normal(size=(rows, 2))
    ids = np.array([f"{seed}-{n}" for n in range(rows)])
    return Predictions(ids, sigmoid(heard).astype(np.float32), LABELS, targets_NK=targets)


def folder(tmp_path: Path) -> Path:
    """Two members: one in Parquet by two folds with two fold models on test, one as npz and CSV."""
    a, b = member(300, 0, 1.3), member(300, 0, 1.5)
    write_predictions(tmp_path / "a-0.parquet", a.rows(np.arange(200)))
    write_predictions(tmp_path / "a-1.parquet", a.rows(np.arange(200, 300)))
    names = np.array(LABELS.names)
    np.savez(tmp_path / "b.npz", id=b.ids[::-1], labels=names, probs=b.probs_NK[::-1])
    for fold, noise in enumerate((1.3, 1.31)):
        write_predictions(tmp_path / f"a-test-{fold}.parquet", member(200, 1, noise))
    test = member(200, 1, 1.5)
    lines = ["id,a,b", *(f"{i},{p},{q}" for i, (p, q) in zip(test.ids, test.probs_NK.tolist(), strict=True))]
    (tmp_path / "b-test.csv").write_text("\n".join(lines))
    return tmp_path


def test_foreign_files_in_ensemble_predictions_and_tables_out(tmp_path: Path) -> None:
    place = folder(tmp_path)
    fitting = members_of([f"a={place}/a-0.parquet", f"a={place}/a-1.parquet", f"b={place}/b.npz"])
    test = members_of([f"a={place}/a-test-0.parquet", f"a={place}/a-test-1.parquet", f"b={place}/b-test.csv"])
    ensemble = run_ensemble(fitting, test, str(place / "out"), CONFIG)
    loaded = Ensemble.load(place / "out" / "ensemble.json")
    assert loaded.measured == ensemble.measured
    assert loaded.measured is not None
    assert loaded.fitted_on["rows"] == 300
    predicted = read_predictions(place / "out" / "predictions.parquet")
    assert predicted.targets_NK is not None
    counts = metrics.Counts.of(predicted.targets_NK, loaded.decide(predicted.probs_NK))
    assert loaded.measured["macro_f1"] == pytest.approx(float(metrics.macro_f1(counts)))
    assert set(loaded.measured["over_single_half"]) == {"macro_f1", "micro_f1"}
    with (place / "out" / "per_class.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["label"] for row in table] == ["a", "b"]
    assert float(table[0]["f1_low"]) <= float(table[0]["f1"]) <= float(table[0]["f1_high"])
    assert float(table[1]["f1_ensemble"]) == pytest.approx(loaded.measured["per_class_f1"]["b"])
    assert {"f1_single_half", "f1_single_tuned", "f1_ensemble_half"} <= set(table[0])
    with (place / "out" / "decisions.csv").open() as stream:
        decided = [row["tags"].split() for row in csv.DictReader(stream)]
    assert decided == [list(names) for names in LABELS.decode(loaded.decide(predicted.probs_NK))]


def test_without_test_files_the_table_is_estimated(tmp_path: Path) -> None:
    place = folder(tmp_path)
    ensemble = run_ensemble({"a": [f"{place}/a-0.parquet"]}, None, str(place / "out"), CONFIG)
    assert ensemble.measured is None
    assert sorted(path.name for path in (place / "out").iterdir()) == ["ensemble.json", "per_class.csv"]
    with (place / "out" / "per_class.csv").open() as stream:
        assert {row["f1_is"] for row in csv.DictReader(stream)} == {"estimated"}


def test_shards_without_ray_run_in_turn(tmp_path: Path) -> None:
    a, b = member(300, 0, 1.3), member(300, 0, 1.5)
    files: dict[str, list[str]] = {"a": [], "b": []}
    for i in range(3):
        for name, whole in (("a", a), ("b", b)):
            write_predictions(tmp_path / f"{name}{i}.parquet", whole.rows(np.arange(i, 300, 3)))
            files[name].append(str(tmp_path / f"{name}{i}.parquet"))
    at_once = run_ensemble(files, None, str(tmp_path / "whole"), CONFIG)
    in_parts = run_ensemble(files, None, str(tmp_path / "parts"), CONFIG, sharded=True)
    np.testing.assert_array_equal(at_once.thresholds, in_parts.thresholds)
    assert (tmp_path / "whole" / "ensemble.json").read_text() == (
        tmp_path / "parts" / "ensemble.json"
    ).read_text()


def test_members_are_named_by_argument_or_by_file(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "two.npz", id=["x"], labels=["l"], p_a=np.zeros((1, 1)), p_b=np.zeros((1, 1)), y=[[1]]
    )
    assert members_of(["m=s3://bucket/x=1/f.parquet", "d/n.csv", "m=g.parquet"]) == {
        "m": ["s3://bucket/x=1/f.parquet", "g.parquet"],
        "n": ["d/n.csv"],
    }
    path = str(tmp_path / "two.npz")
    assert members_of([path]) == {"a": [f"{path}#a"], "b": [f"{path}#b"]}


def test_test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    place = folder(tmp_path)
    config = CONFIG.model_copy(update={"combination": "mean"})
    fitting = members_of([f"a={place}/a-0.parquet", f"a={place}/a-1.parquet", f"b={place}/b.npz"])
    with pytest.raises(PredictionsError, match="none of b"):
        run_ensemble(fitting, {"a": [f"{place}/a-test-0.parquet"]}, str(place / "out"), config)
    other = member(200, 1, 1.5)
    swapped = Predictions(other.ids, other.probs_NK, LabelSet(("b", "a")))
    write_predictions(place / "swapped.parquet", swapped)
    both = {"a": [f"{place}/swapped.parquet"], "b": [f"{place}/swapped.parquet"]}
    with pytest.raises(PredictionsError, match="labels it was fitted on"):
        run_ensemble(fitting, both, str(place / "out"), config)
    assert not (place / "out" / "ensemble.json").exists()
