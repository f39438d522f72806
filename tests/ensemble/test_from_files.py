"""An ensemble from files of any origin, and the directory that it writes."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jobs.ensemble import main

from canopy import metrics
from canopy.config import EnsembleConfig
from canopy.ensemble.from_files import members_of, reads_in_shards, run_ensemble
from canopy.ensemble.logistic import sigmoid
from canopy.ensemble.model import Ensemble
from canopy.errors import PredictionsError
from canopy.labels import LabelSet
from canopy.predictions.io import read_predictions, write_predictions
from canopy.predictions.predictions import Predictions

CONFIG = EnsembleConfig(folds=4, bags=2, bootstrap=100)
LABELS = LabelSet(("a", "b"))


def member(rows: int, seed: int, noise: float) -> Predictions:
    """A member of which equal seeds give equal rows and targets; each member has its own noise."""
    rng = np.random.default_rng(seed)
    signal = 2 * rng.normal(size=(rows, 2)) - [0, 1.5]
    targets = (rng.random((rows, 2)) < sigmoid(signal)).astype(np.uint8)
    noisy = signal + noise * np.random.default_rng(int(100 * noise) + seed).normal(size=(rows, 2))
    ids = np.array([f"{seed}-{n}" for n in range(rows)])
    return Predictions(ids, sigmoid(noisy).astype(np.float32), LABELS, targets_NK=targets)


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


def test_files_of_other_tools_give_ensemble_predictions_and_tables(tmp_path: Path) -> None:
    place = folder(tmp_path)
    fitting = members_of([f"a={place}/a-0.parquet", f"a={place}/a-1.parquet", f"b={place}/b.npz"])
    test = members_of([f"a={place}/a-test-0.parquet", f"a={place}/a-test-1.parquet", f"b={place}/b-test.csv"])
    ensemble = run_ensemble(fitting, test, str(place / "out"), CONFIG)
    loaded = Ensemble.load(place / "out" / "ensemble.json")
    assert loaded.measured == ensemble.measured
    assert loaded.measured is not None
    assert loaded.fitted_on is not None
    assert loaded.fitted_on.rows == 300
    predicted = read_predictions(place / "out" / "predictions.parquet")
    assert predicted.targets_NK is not None
    counts = metrics.Counts.of(predicted.targets_NK, loaded.decide(predicted.probs_NK))
    assert loaded.measured.macro_f1 == pytest.approx(float(metrics.macro_f1(counts)))
    assert set(loaded.measured.over["single_half"]) == {"macro_f1", "micro_f1"}
    with (place / "out" / "per_class.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["label"] for row in table] == ["a", "b"]
    assert float(table[0]["f1_low"]) <= float(table[0]["f1"]) <= float(table[0]["f1_high"])
    assert float(table[1]["f1_ensemble"]) == pytest.approx(loaded.measured.per_class_f1["b"])
    assert {"f1_single_half", "f1_single_tuned", "f1_ensemble_half"} <= set(table[0])
    with (place / "out" / "decisions.csv").open() as stream:
        decided = [row["tags"].split() for row in csv.DictReader(stream)]
    assert decided == [list(names) for names in LABELS.decode(loaded.decide(predicted.probs_NK))]


def test_test_labels_change_what_is_measured_and_nothing_else(tmp_path: Path) -> None:
    place = folder(tmp_path)
    fitting = members_of([f"a={place}/a-0.parquet", f"a={place}/a-1.parquet", f"b={place}/b.npz"])
    given = member(200, 1, 1.3)
    assert given.targets_NK is not None
    found = []
    for number, targets_NK in enumerate((given.targets_NK, 1 - given.targets_NK)):
        write_predictions(place / "t.parquet", replace(given, targets_NK=targets_NK))
        test = {"a": [f"{place}/t.parquet"], "b": [f"{place}/b-test.csv"]}
        run_ensemble(fitting, test, str(place / f"out{number}"), CONFIG)
        found.append(json.loads((place / f"out{number}" / "ensemble.json").read_text()))
    assert found[0].pop("measured") != found[1].pop("measured")
    assert found[0] == found[1]


def test_a_test_split_that_was_fitted_on_is_refused(tmp_path: Path) -> None:
    place = folder(tmp_path)
    fitting = {"a": [f"{place}/a-0.parquet", f"{place}/a-1.parquet"]}
    write_predictions(place / "seen.parquet", member(300, 0, 1.3).rows(np.arange(7, 5, -1)))
    for sharded in (False, True):
        with pytest.raises(PredictionsError, match=r"no fitting row. Got: '0-6' is in both \(2 such rows\)"):
            run_ensemble(fitting, {"a": [f"{place}/seen.parquet"]}, str(place / "out"), CONFIG, sharded)
    write_predictions(place / "bare.parquet", replace(member(300, 0, 1.3), targets_NK=None))
    bare = {"a": [f"{place}/bare.parquet"]}
    assert run_ensemble(fitting, bare, str(place / "out"), CONFIG).measured is None
    with pytest.raises(PredictionsError, match="must be of members that have fitting files"):
        run_ensemble(fitting, {"aa": [f"{place}/bare.parquet"]}, str(place / "out"), CONFIG)


def test_the_job_takes_files_of_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = folder(tmp_path)
    fitting = ["--fitting", f"a={place}/a-0.parquet", f"a={place}/a-1.parquet", f"b={place}/b.npz"]
    test = ["--test", f"a={place}/a-test-0.parquet", f"a={place}/a-test-1.parquet", f"b={place}/b-test.csv"]
    out = place / "out"
    config = ["--ensemble.folds", "4", "--ensemble.bootstrap", "100", "--ensemble.combination", "simplex"]
    assert main([*fitting, *test, "--out", str(out), *config]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("simplex of 2 members")
    measured = json.loads((out / "ensemble.json").read_text())["measured"]
    for scores, where in ((measured, "at its thresholds"), (measured["at_half"], "at 0.5")):
        assert f"macro-F1 {scores['macro_f1']:.3f}" in printed
        assert f"F2 per image {scores['samples_f2']:.3f} {where}" in printed
    assert measured["samples_f2"] != measured["at_half"]["samples_f2"]
    with (out / "per_class.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        gained = float(row["gain_tuning"]) + float(row["gain_combining"])
        assert gained == pytest.approx(float(row["f1_ensemble"]) - float(row["f1_single_half"]))
        assert int(row["positives"]) > 0
    assert main([*fitting, "--out", str(out), "--ensemble.folds", "3"]) == 2
    assert main(["--fitting", f"a={place}/nothing.csv", "--out", str(out)]) == 2
    assert "nothing.csv must exist" in capsys.readouterr().err


def test_large_files_with_equal_shards_are_read_in_shards(tmp_path: Path) -> None:
    place = folder(tmp_path)
    parts = [f"{place}/a-0.parquet", f"{place}/a-1.parquet"]
    always, never = (CONFIG.model_copy(update={"shard_above_mb": mb}) for mb in (0, 1))
    assert reads_in_shards({"a": parts, "b": parts}, always)
    assert not reads_in_shards({"a": parts, "b": parts}, never)
    assert not reads_in_shards({"a": parts, "b": parts[:1]}, always)
    assert not reads_in_shards({"a": parts[:1]}, always)
    assert not reads_in_shards({"a": [f"{place}/no/1.csv", f"{place}/no/2.csv"]}, always)


def test_without_test_files_the_table_is_estimated(tmp_path: Path) -> None:
    place = folder(tmp_path)
    ensemble = run_ensemble({"a": [f"{place}/a-0.parquet"]}, None, str(place / "out"), CONFIG)
    assert ensemble.measured is None
    assert sorted(path.name for path in (place / "out").iterdir()) == ["ensemble.json", "per_class.csv"]
    with (place / "out" / "per_class.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["f1_is"] for row in rows} == {"estimated"}
    assert [row["f1"] for row in rows] == [row["f1_ensemble"] for row in rows]
    assert {float(row["gain_combining"]) for row in rows} == {0.0}  # of one member alone


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
    assert members_of([f"{path}#b", "m#1/n.csv", "s3://b/o.parquet?region=eu-west-1"]) == {
        "b": [f"{path}#b"],
        "n": ["m#1/n.csv"],
        "o": ["s3://b/o.parquet?region=eu-west-1"],
    }


def test_member_files_with_an_ambiguous_header_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two_ids.csv").write_text("id,id,a,target:a\n" + "x,x,0.5,1\n" * 30)
    assert main(["--fitting", f"a={tmp_path}/two_ids.csv", "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "two_ids.csv: The columns must have distinct names. Got: 'id' twice." in line


def test_ids_that_are_formulas_are_prefixed_in_decisions_and_kept_in_predictions(tmp_path: Path) -> None:
    fitting, test = member(60, 0, 1.0), member(60, 1, 1.0)
    ids = np.array(["=cmd|'/c calc'!A1", *test.ids[1:].tolist()])
    write_predictions(tmp_path / "f.parquet", fitting)
    write_predictions(tmp_path / "t.parquet", replace(test, ids=ids))
    files = {"m": [f"{tmp_path}/f.parquet"]}, {"m": [f"{tmp_path}/t.parquet"]}
    run_ensemble(*files, str(tmp_path / "out"), CONFIG)
    with (tmp_path / "out" / "decisions.csv").open() as stream:
        names = [row["image_name"] for row in csv.DictReader(stream)]
    assert f"'{ids[0]}" in names
    assert ids[0] in read_predictions(tmp_path / "out" / "predictions.parquet").ids


def test_test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    place = folder(tmp_path)
    config = CONFIG.model_copy(update={"combination": "mean"})
    fitting = members_of([f"a={place}/a-0.parquet", f"a={place}/a-1.parquet", f"b={place}/b.npz"])
    twice = {"a": [f"{place}/a-0.parquet"] * 2}
    with pytest.raises(
        PredictionsError, match=r"^The ids of a=.*a-0\.parquet and a=.*a-0\.parquet must differ"
    ):
        run_ensemble(twice, None, str(place / "out"), config)
    with pytest.raises(PredictionsError, match="none of b"):
        run_ensemble(fitting, {"a": [f"{place}/a-test-0.parquet"]}, str(place / "out"), config)
    other = member(200, 1, 1.5)
    swapped = Predictions(other.ids, other.probs_NK, LabelSet(("b", "a")))
    write_predictions(place / "swapped.parquet", swapped)
    both = {"a": [f"{place}/swapped.parquet"], "b": [f"{place}/swapped.parquet"]}
    with pytest.raises(PredictionsError, match="'a' in the fitting files, 'b' in the test"):
        run_ensemble(fitting, both, str(place / "out"), config)
    assert not (place / "out" / "ensemble.json").exists()
