"""Geometry of the plot of trials over gamma and alpha."""

from __future__ import annotations

from typing import Any

from canopy.report.focal_plot import focal_plot


def test_the_sweep_draws_the_best_trial_last_and_strongest() -> None:
    trials: list[dict[str, Any]] = [
        {"gamma": 2.0, "alpha": 0.4, "score": 0.7},
        {"gamma": 0.0, "alpha": 0.6, "score": 0.5},
        {"score": None},
    ]
    found = focal_plot(trials)
    assert found is not None
    assert [(dot.shade, dot.best) for dot in found.dots] == [(0, False), (100, True)]
    assert focal_plot([]) is None
