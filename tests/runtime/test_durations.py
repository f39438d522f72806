"""Durations as text."""

from __future__ import annotations

import pytest

from canopy.runtime.durations import clock_duration, duration_with_units, rounded_duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0:00"), (0.4, "0:00"), (42, "0:42"), (725, "12:05"), (3723, "1:02:03")]
)
def test_clock_durations(seconds: float, text: str) -> None:
    assert clock_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40 s"), (60, "1 min"), (7199, "120 min"), (7200, "2 h"), (172800, "2 days")]
)
def test_rounded_durations(seconds: float, text: str) -> None:
    assert rounded_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (8, "8 s"), (59.7, "1 min"), (125, "2 min 05 s"), (12_000, "3 h 20 min")],
)
def test_durations_with_units(seconds: float, text: str) -> None:
    assert duration_with_units(seconds) == text
