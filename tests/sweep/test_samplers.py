from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from canopy.config import FieldRange, LossConfig, Space, Study, SweepConfig, VariantConfig
from canopy.config.sweep import SamplerName
from canopy.config.sweep_fields import contains
from canopy.sweep.focal_points import sample_points
from canopy.sweep.records import TrialRecord
from canopy.sweep.samplers import next_point, own_point

VARIANT = VariantConfig(name="a", loss=LossConfig(name="focal"))
SPACE: Space = {
    "loss.name": ("bce", "focal"),
    "loss.gamma": FieldRange(low=0, high=4),
    "optim.lr": FieldRange(low=1e-4, high=1e-1, log=True),
    "optim.batch_size": FieldRange(low=8, high=64, step=8),
}
SETTINGS = SweepConfig(seed=3)


def study(sampler: SamplerName, space: Space = SPACE) -> Study:
    return Study(VARIANT, space, sampler, "sweep.space")


def ended(values: dict[str, Any], score: float | None, epochs: int = 4) -> TrialRecord:
    error = "killed" if score is None else None
    curve = () if score is None else (score,) * epochs
    return TrialRecord(values, score, epochs, score is not None and epochs < 4, error, curve)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_points_lie_in_the_space_and_hold_only_what_is_read(sampler: SamplerName) -> None:
    records: dict[int, TrialRecord] = {}
    for number in range(12):
        point = next_point(study(sampler), SETTINGS, number, records, [])
        assert point is not None
        assert all(contains(SPACE[name], value) for name, value in point.items())
        assert ("loss.gamma" in point) == (point["loss.name"] == "focal")
        assert point["optim.batch_size"] % 8 == 0
        records[number] = ended(point, score=float(point["optim.lr"]))
    assert {record.values["loss.name"] for record in records.values()} == {"bce", "focal"}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_first_point_is_the_variants_own(sampler: SamplerName) -> None:
    own = {"loss.name": "focal", "loss.gamma": 2.0, "optim.lr": 2e-3, "optim.batch_size": 64}
    assert next_point(study(sampler), SETTINGS, 0, {}, []) == own
    outside = study(sampler, {"optim.lr": FieldRange(low=0.1, high=0.2)})
    assert own_point(outside) is None
    first = next_point(outside, SETTINGS, 0, {}, [])
    assert first is not None
    assert 0.1 <= first["optim.lr"] <= 0.2


def test_the_same_records_give_the_same_point() -> None:
    records = {n: ended({"optim.lr": 0.001 * (n + 1)}, 0.1 * n) for n in range(8)}
    space: Space = {"optim.lr": SPACE["optim.lr"]}
    first, again = (next_point(study("tpe", space), SETTINGS, 8, records, []) for _ in range(2))
    assert first == again
    assert next_point(study("tpe", space), SETTINGS, 9, records, []) != first


def found_by(sampler: SamplerName, seed: int, trials: int = 25) -> float:
    """Highest value of a made-up score with a peak at lr 0.003 and momentum-like coupling to the decay."""
    space: Space = {
        "optim.lr": SPACE["optim.lr"],
        "optim.weight_decay": FieldRange(low=1e-3, high=1, log=True),
    }
    records: dict[int, TrialRecord] = {}
    for number in range(trials):
        point = next_point(study(sampler, space), SweepConfig(seed=seed), number, records, [])
        assert point is not None
        a, b = np.log10(point["optim.lr"] / 3e-3), np.log10(point["optim.weight_decay"] / 0.3)
        records[number] = ended(point, float(-(a**2) - b**2 - 0.5 * (a + b) ** 2))
    return max(record.score or -9.0 for number, record in records.items() if number)


def test_tpe_finds_more_than_random_points() -> None:
    seeds = range(4)
    tpe, random = (np.mean([found_by(kind, seed) for seed in seeds]) for kind in ("tpe", "random"))
    assert tpe > random


def test_bad_regions_are_left_also_when_trials_fail_or_are_stopped() -> None:
    space: Space = {"optim.lr": FieldRange(low=0, high=1)}
    records = {n: ended({"optim.lr": 0.5 + 0.05 * n}, None, 0) for n in range(5)}
    records |= {n: ended({"optim.lr": 0.3 + 0.02 * n}, 0.9, epochs=1) for n in range(5, 10)}
    records |= {n: ended({"optim.lr": 0.01 * n}, 0.5) for n in range(10, 16)}
    drawn = [next_point(study("tpe", space), SETTINGS, n, records, []) for n in range(20, 40)]
    low = [point["optim.lr"] < 0.3 for point in drawn if point]
    assert np.mean(low) > 0.6, "points that ran to the end rank above stopped ones, whatever their score"


def test_running_points_are_not_drawn_again() -> None:
    space: Space = {"loss.name": ("bce", "focal", "asymmetric")}
    records = {0: ended({"loss.name": "bce"}, 0.5)}
    for number in range(1, 12):
        point = next_point(study("tpe", space), SETTINGS, number, records, [{"loss.name": "focal"}])
        assert point == {"loss.name": "asymmetric"}


def test_the_grid_ends_after_its_points() -> None:
    grid = study("grid", {"loss.gamma": (1.0, 2.0), "loss.alpha": (0.25, 0.5)})
    points = [next_point(grid, SETTINGS, number, {}, []) for number in range(5)]
    assert points[0] == {"loss.gamma": 1.0, "loss.alpha": 0.25}
    assert points[4] is None
    assert len({str(point) for point in points[:4]}) == 4


def test_the_fixed_sequence_is_that_of_former_versions() -> None:
    settings = SweepConfig(trials=4)
    focal = study(
        "halton", {"loss.gamma": FieldRange(low=0, high=4), "loss.alpha": FieldRange(low=0, high=1)}
    )
    points = [next_point(focal, settings, number, {}, []) for number in range(4)]
    assert points == [point.values for point in sample_points(settings)]
