"""Axes cover their values with round ticks; durations are short texts."""

from __future__ import annotations

from typing import Any

import pytest

from canopy.report import axes


def test_a_linear_axis_has_round_ticks_in_order_within_the_box() -> None:
    axis = axes.linear_axis([0.13, 0.58])
    assert axis.low <= 0.13
    assert axis.high >= 0.58
    assert [tick.text for tick in axis.ticks] == ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6"]
    places = [tick.at for tick in axis.ticks]
    assert places == sorted(places)
    assert places[0] == 0
    assert places[-1] == 100


@pytest.mark.parametrize(
    "values", [[], [None], [float("nan")], [0.4], [0.4, 0.4], [0.0], [-3, 7], [1e-9, 2e-9], [1e6]]
)
def test_every_axis_survives_odd_values(values: list[Any]) -> None:
    found = [axes.linear_axis(values), axes.log_axis(values)]
    found += [axes.score_axis(values)] if max(axes.finite_values(values), default=0) <= 1 else []
    for axis in found:
        assert axis.low < axis.high
        for value in axes.finite_values(values):
            assert 0 <= axis.at(value) <= 100
        assert len(axis.ticks) <= 12


def test_a_logarithmic_axis_spends_the_same_room_on_every_decade() -> None:
    axis = axes.log_axis([3, 40_000])
    assert [tick.text for tick in axis.ticks] == ["1", "10", "100", "1,000", "10,000", "100,000"]
    assert [tick.at for tick in axis.ticks] == [0, 20, 40, 60, 80, 100]
    assert axis.at(0) == 0  # nothing to take the logarithm of
