from __future__ import annotations

import pytest

from canopy.config import SweepConfig, derive
from canopy.sweep.focal_points import ANCHORS, FocalParameters, is_in_range, sample_points


def test_the_anchors_come_first_and_the_others_lie_within_the_ranges() -> None:
    settings = SweepConfig(trials=40)
    points = sample_points(settings)
    assert points[:2] == list(ANCHORS)
    assert len(set(points)) == 40
    assert all(is_in_range(point, settings) for point in points)


def test_points_are_those_of_finished_sweeps() -> None:
    points = sample_points(SweepConfig(trials=4))
    assert points[2].gamma == pytest.approx(2.825, abs=5e-3)
    assert points[2].alpha == pytest.approx(0.48, abs=5e-3)
    assert points[3].gamma == pytest.approx(0.825, abs=5e-3)
    assert points[3].alpha == pytest.approx(0.65, abs=5e-3)


def test_anchors_out_of_range_are_left_out() -> None:
    settings = SweepConfig(trials=3, gamma=(1, 3))
    assert sample_points(settings)[0] == ANCHORS[1]
    assert ANCHORS[0] not in sample_points(settings)


def test_few_trials_take_the_first_points() -> None:
    many = SweepConfig(trials=5)
    assert sample_points(derive(many, trials=1)) == sample_points(many)[:1]
    assert sample_points(derive(many, trials=0)) == []
    assert sample_points(derive(many, seed=1))[2:] != sample_points(many)[2:]


def test_ends_of_the_ranges_count() -> None:
    settings = SweepConfig(gamma=(0, 2), alpha=(0.25, 0.5))
    assert is_in_range(FocalParameters(0.0, 0.25), settings)
    assert is_in_range(FocalParameters(2.0, 0.5), settings)
    assert not is_in_range(FocalParameters(2.1, 0.5), settings)
    assert not is_in_range(FocalParameters(2.0, 0.2), settings)
