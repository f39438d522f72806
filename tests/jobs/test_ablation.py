"""The ablation: its rows, the arithmetic of its table, the trainings that a second run skips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from jobs.benchmarks.ablation import __main__ as ablation
from jobs.benchmarks.ablation.data import AblationData
from jobs.benchmarks.ablation.derived import derive_predictions, grid_thresholds
from jobs.benchmarks.ablation.records import CurrentRecords, Records, essentials, identity
from jobs.benchmarks.ablation.rows import (
    COMBINED,
    ROWS,
    TRAINED,
    USUAL,
    WITHOUT,
    DataName,
    ScaleName,
    find,
    setting,
)
from jobs.benchmarks.ablation.runs import FIGURES, evaluate_members, figures, resampled
from jobs.benchmarks.ablation.study import Study, mean_ratio, section
from jobs.benchmarks.ablation.tables import gain, gain_interval, is_winner, points, verdict, verdict_text
from numpy.typing import NDArray

from canopy.config import AugmentConfig, fingerprint_content
from canopy.data.catalogue import Catalogue, Split
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.uri_list import UriList
from canopy.errors import ConfigError, InputError
from canopy.labels import LabelSet
from canopy.metrics.bootstrap import Interval
from canopy.runtime.console import Console

TINY = setting("generated", "tiny")
LABELS = LabelSet(("clear", "mine", "road"))
Member = dict[Split, NDArray[np.float32]]


# Rows


@pytest.mark.parametrize("data", get_args(DataName))
@pytest.mark.parametrize("scale", get_args(ScaleName))
def test_every_row_is_a_valid_config_of_its_own(data: DataName, scale: ScaleName) -> None:
    size = setting(data, scale)
    variants = [size.variant(row, 1, 1e-3) for row in ROWS.values() if not row.of]
    assert len({identity(variant, size) for variant in variants}) == len(variants)
    assert {variant.seed for variant in variants} == {1}
    assert {variant.augment.place for variant in variants} == {"device"}


def test_a_row_differs_from_the_baseline_in_its_technique_only() -> None:
    plain = fingerprint_content(TINY.variant(ROWS["baseline"], 0, 1e-3))
    former = {new: old for old, new in AugmentConfig.RENAMED.items()}
    for row in TRAINED:
        own = fingerprint_content(TINY.variant(row, 0, 1e-3))
        sections = [name for name, values in plain.items() if isinstance(values, dict)]
        changed = {(s, f) for s in sections for f in plain[s] if own[s][f] != plain[s][f]}
        expected = {
            (part, former.get(field, field)) for part, values in row.changes.items() for field in values
        }
        if row.role != "resnet":
            expected |= {("model", "backbone")}
        assert changed <= expected, row.name
        assert changed or row.name == "baseline"


def test_twelve_rows_are_trained_by_default() -> None:
    assert len(USUAL) == 12
    assert USUAL[0] == "baseline"
    assert USUAL[-1] == "all"


def test_leaving_one_out_removes_that_technique() -> None:
    whole = ROWS["all"]
    for name in COMBINED:
        rest = ROWS[WITHOUT + name]
        assert rest.against == "all"
        merged = {s: {**rest.changes.get(s, {}), **v} for s, v in ROWS[name].changes.items()}
        assert {**rest.changes, **merged} == whole.changes
        assert (rest.role, rest.changes) != (whole.role, whole.changes)


def test_an_unknown_row_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="mixup"):
        find(["mixupp"])


def test_a_field_without_influence_on_figures_does_not_change_the_identity() -> None:
    variant = TINY.variant(ROWS["mixup"], 0, 1e-3)
    moved = variant.model_copy(
        update={"scale": TINY.baseline.scale.model_copy(update={"threads_per_worker": 2})}
    )
    assert identity(moved, TINY) == identity(variant, TINY)
    assert identity(TINY.variant(ROWS["mixup"], 1, 1e-3), TINY) != identity(variant, TINY)
    assert identity(TINY.variant(ROWS["mixup"], 0, 2e-3), TINY) != identity(variant, TINY)
    fields = essentials(variant)
    assert fields["augment"] == {"mixup_alpha": 0.2}
    assert fields["model"]["backbone"] == "test_resnet"


# The arithmetic of the table


def test_gain_by_hand() -> None:
    values, against = np.array([[0.50], [0.60]]), np.array([[0.45], [0.58]])
    drawn = np.array([[[0.50, 0.52]], [[0.60, 0.62]]])
    other = np.array([[[0.45, 0.45]], [[0.58, 0.62]]])
    found = gain(values, against, drawn, other, ["macro_f1"])["macro_f1"]
    assert found["differences"] == [0.05, 0.02]
    # differences drawn: seed 0: .05, .07 (sd .01414); seed 1: .02, .00; their mean: .035, .035
    assert found["seed_errors"] == [0.01414, 0.01414]
    assert found["row_error"] == 0


def test_interval_is_students_if_seeds_dominate() -> None:
    # mean .04, s = .02, s / √3 = .011547, t(2) = 4.3027
    found = gain_interval([0.02, 0.04, 0.06], row_error=0.0)
    assert (found.value, found.low, found.high) == pytest.approx((0.04, -0.009683, 0.089683), abs=1e-5)
    assert verdict(found) == "not resolved"


def test_interval_is_normal_if_rows_dominate() -> None:
    found = gain_interval([0.04, 0.04, 0.04], row_error=0.01)
    assert (found.low, found.high) == pytest.approx((0.04 - 0.0196, 0.04 + 0.0196), abs=1e-5)
    assert verdict(found) == "gains"
    assert verdict(gain_interval([-0.04] * 3, 0.01)) == "costs"


def test_interval_of_both_adds_variances() -> None:
    # s²/3 = 1.3333e-4, rows 1e-4, sum 2.3333e-4; degrees of freedom 2 · 1.75² = 6.125; t = 2.4352
    found = gain_interval([0.02, 0.04, 0.06], row_error=0.01)
    assert found.high - found.value == pytest.approx(2.4352 * 2.3333e-4**0.5, rel=1e-3)


def test_one_seed_resolves_nothing() -> None:
    found = gain_interval([0.3], row_error=0.001)
    assert verdict(found) == "not resolved"
    assert points(found) == "+30.0 [one seed]"


@pytest.mark.parametrize(("by_seed", "by_row"), [(0.01, 0.0), (0.01, 0.01), (0.003, 0.01)])
def test_the_interval_has_its_nominal_coverage(by_seed: float, by_row: float) -> None:
    rng = np.random.default_rng(0)
    seeds, rows = rng.normal(0.02, by_seed, (2000, 3)), rng.normal(0, by_row, (2000, 1))
    found = [gain_interval(d, by_row) for d in seeds + rows]
    share = np.mean([interval.low <= 0.02 <= interval.high for interval in found])
    assert 0.935 < share < 0.975


def test_text_of_points_and_verdicts() -> None:
    assert points(Interval(0.0123, -0.0031, 0.0277)) == "+1.2 [−0.3, +2.8]"
    assert points(Interval(-0.00001, -0.01, 0.01)) == "0.0 [−1.0, +1.0]"
    up, unclear, down = Interval(1, 0.5, 2), Interval(0, -1, 1), Interval(-1, -2, -0.5)
    assert verdict_text(ROWS["cbam"], up, up) == "gains"
    assert verdict_text(ROWS["cbam"], up, unclear) == "gains at 0.5, not resolved when tuned"
    assert verdict_text(ROWS["grid"], up, down) == "gains"
    assert verdict_text(ROWS[WITHOUT + "cbam"], down, down) == "worse without"


def test_cost_is_the_mean_ratio_over_seeds() -> None:
    runs = [[{"s": 3.0}, {"s": 2.0}], [{"s": 1.0}, {"s": 2.0}]]
    assert mean_ratio(runs, "s") == 1.0
    assert mean_ratio([[{"s": 3.0}, {}]], "s") is None


# Predictions


def synthetic_member(rows: int = 400) -> tuple[AblationData, Member]:
    """A data set of three labels, and a member that ranks well but whose probabilities are far too low."""
    rng = np.random.default_rng(3)
    targets_NK = (rng.uniform(size=(rows, 3)) < [0.7, 0.1, 0.3]).astype(np.uint8)
    split = np.array(["val", "test"])[np.arange(rows) % 2]
    ids = [f"c{n}" for n in range(rows)]
    catalogue = Catalogue(ids, ids, targets_NK, split, np.zeros(rows, np.int8), np.array(ids), LABELS)
    probs_NK = np.clip(0.15 + 0.25 * targets_NK + rng.normal(0, 0.06, (rows, 3)), 0.01, 0.99).astype(
        np.float32
    )
    member: Member = {"val": probs_NK[split == "val"], "test": probs_NK[split == "test"]}
    return AblationData(catalogue, ChipSource(8, UriList(()), None), Path("nowhere")), member


def test_thresholds_are_tuned_on_val_and_help_on_test(tmp_path: Path) -> None:
    data, member = synthetic_member()
    kept = evaluate_members({"timid": member}, data)
    found = figures(data.targets("test"), kept)
    assert found["macro_f1"] < 0.2
    assert found["macro_f1_tuned"] > 0.9
    assert list(found) == list(FIGURES)
    kept.write(tmp_path / "k.npz")
    for name in ("grid", "exact", "shrunk"):
        other = derive_predictions(ROWS[name], {"baseline": tmp_path / "k.npz"}, data)
        assert figures(data.targets("test"), other)["macro_f1"] > 0.9
        assert np.array_equal(other.test_NK, kept.test_NK)


def test_the_ensemble_is_the_mean_at_half() -> None:
    data, member = synthetic_member()
    bold: Member = {part: 1 - (1 - probs_NK) ** 3 for part, probs_NK in member.items()}
    kept = evaluate_members({"timid": member, "bold": bold}, data)
    np.testing.assert_allclose(kept.test_NK, (member["test"] + bold["test"]) / 2, rtol=1e-6)
    assert np.array_equal(kept.plain_NK, kept.test_NK >= 0.5)


def test_the_plans_grid_by_hand() -> None:
    truth_NK = np.array([[1], [1], [0], [0]], np.uint8)
    probs_NK = np.array([[0.9], [0.32], [0.28], [0.1]], np.float32)
    assert grid_thresholds(probs_NK, truth_NK) == pytest.approx([0.3])
    assert grid_thresholds(np.full((4, 1), 0.05, np.float32), truth_NK) == pytest.approx([0.5])


def test_resamples_are_paired() -> None:
    data, member = synthetic_member()
    truth_NK, kept = data.targets("test"), evaluate_members({"timid": member}, data)
    again = resampled(truth_NK, kept.test_NK, kept.plain_NK, kept.tuned_NK)
    np.testing.assert_array_equal(again, kept.resampled_FB)
    spread_F, center_F = np.nanstd(again, axis=1), np.nanmean(again, axis=1)
    point_F = np.array(list(figures(truth_NK, kept).values()))
    assert (np.abs(center_F - point_F) < spread_F + 0.01).all()
    assert (spread_F > 0).all()


# The file of figures


def test_an_incomplete_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    Records.open(path).add({"kind": "lr", "fingerprint": "a", "val_map": 0.5})
    with path.open("a") as stream:
        stream.write('{"kind": "lr", "finge')
    records = Records.open(path)
    records.add({"kind": "lr", "fingerprint": "a", "val_map": 0.6})
    assert [json.loads(line)["val_map"] for line in path.read_text().splitlines()] == [0.5, 0.6]
    found = Records.open(path).find("lr", "a")
    assert found is not None
    assert found["val_map"] == 0.6
    path.write_text("nonsense\n")
    with pytest.raises(InputError, match="line 1"):
        Records.open(path)


def with_rates(path: Path) -> CurrentRecords:
    """A file in which every learning rate has been tested; the lowest is the best."""
    current = CurrentRecords(Records.open(path), TINY)
    for role in TINY.backbones:
        for rate in TINY.rates:
            key = current.rate_job(role, rate).fingerprint
            current.records.add({"kind": "lr", "fingerprint": key, "lr": rate, "val_map": 0.5 - rate})
    return current


def test_the_rate_with_the_best_validation_map_is_used(tmp_path: Path) -> None:
    assert CurrentRecords(Records.open(tmp_path / "g.jsonl"), TINY).rate("resnet") is None
    current = with_rates(tmp_path / "f.jsonl")
    assert current.rate("efficientnet") == min(TINY.rates)
    assert current.job(ROWS["efficientnet"], 0).variant.optim.lr == min(TINY.rates)


def test_recorded_trainings_are_skipped(tmp_path: Path) -> None:
    current, (data, member) = with_rates(tmp_path / "f.jsonl"), synthetic_member()
    data = AblationData(data.catalogue, data.chips, tmp_path)
    study = Study(("generated", "tiny"), TINY, data, current.records, Console(), 2)
    rows = [ROWS["baseline"], ROWS["cbam"]]
    jobs = {row.name: current.job(row, 0) for row in rows}
    assert all(study.is_missing(job, rows) for job in jobs.values())

    for name, job in jobs.items():
        evaluate_members({name: member}, data).write(study.predictions_path(job.fingerprint))
        line = {
            "kind": "run",
            "row": name,
            "seed": 0,
            "fingerprint": job.fingerprint,
            "cpu_seconds_per_epoch": 2.0,
        }
        current.records.add({**line, **study.measured(job.fingerprint)})
    assert not any(study.is_missing(job, rows) for job in jobs.values())
    assert study.is_missing(current.job(ROWS["cbam"], 1), rows)

    study.predictions_path(jobs["baseline"].fingerprint).rename(tmp_path / "away")
    assert study.is_missing(jobs["baseline"], rows), "a gain needs its predictions, which are missing"
    (tmp_path / "away").rename(study.predictions_path(jobs["baseline"].fingerprint))
    study.record_derived(rows)
    study.predictions_path(jobs["baseline"].fingerprint).unlink()
    assert not study.is_missing(jobs["baseline"], rows), "the gain is recorded"
    found = current.gain(ROWS["cbam"])
    assert found is not None
    assert found["figures"]["macro_f1"]["differences"] == [0.0]
    assert found["cost"] == 1.0
    assert not is_winner(found)
    with pytest.raises(InputError, match="must hold the figures of a run"):
        section(current.records)
    study.write_setting()
    text = section(current.records)
    assert "| CBAM after the last stage (1 seed) | Medium | +3–5 | 0.0 [one seed] |" in text
    assert "| ×1.00 | not resolved |" in text


def test_the_page_holds_the_tables_of_the_files_of_figures() -> None:
    page = ablation.PAGE.read_text()
    paths = sorted((ablation.DOCS / "ablation").glob("*.jsonl"))
    assert paths
    for path in paths:
        assert section(Records.open(path)) in page, path.name
