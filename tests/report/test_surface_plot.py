from __future__ import annotations

from typing import Any

import pytest

from canopy.report.surface_plot import range_axis, surface_plot

SPACE = {
    "optim.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "loss.gamma": {"low": 0, "high": 4, "log": False},
    "loss.name": ["bce", "focal"],
}
SURFACE: dict[str, Any] = {
    **{"x": "optim.lr", "y": "loss.gamma", "noise": 0.01234, "trials": 12},
    **{"x_values": [3e-4, 3e-3], "y_values": [1, 3]},
    **{"mean": [[0.5, 0.6], [0.55, 0.7]], "deviation": [[0.01, 0.02], [0.03, 0.05]]},
}


def trial(score: float | None, *, stopped: bool = False, **values: Any) -> dict[str, Any]:
    return {
        "values": {k.replace("_", "."): v for k, v in values.items()},
        "score": score,
        "stopped_early": stopped,
    }


TRIALS = [
    trial(0.7, optim_lr=1e-3, loss_gamma=1),
    trial(0.6, optim_lr=1e-4, loss_gamma=4),
    trial(0.9, optim_lr=1e-3, loss_gamma=2, stopped=True),
    trial(None, optim_lr=1e-3, loss_gamma=2),
    trial(0.8, optim_lr=1e-3),
]


def test_cells_go_up_and_the_strongest_is_the_highest() -> None:
    plot = surface_plot(SURFACE, TRIALS, SPACE)
    assert plot is not None
    mean, deviation = plot.panels
    assert [(cell.x, cell.y, cell.shade, cell.text) for cell in mean.cells] == [
        (0, 50, 0, "0.500"),
        (50, 50, 50, "0.600"),
        (0, 0, 25, "0.550"),
        (50, 0, 100, "0.700"),
    ]
    assert (deviation.low, deviation.high) == ("0.0100", "0.0500")
    assert (plot.x_name, plot.y_name, plot.size, plot.noise) == ("lr", "gamma", 50, "0.0123")


def test_complete_trials_that_read_both_fields_lie_over_it_the_best_on_top() -> None:
    plot = surface_plot(SURFACE, TRIALS, SPACE)
    assert plot is not None
    assert [(dot.x, dot.y, dot.best) for dot in plot.dots] == [(0, 0, False), (50, 75, True)]
    assert plot.dots[-1].text == "lr 0.001, γ 1: 0.700"


@pytest.mark.parametrize(
    "surface", [None, {}, {**SURFACE, "x": "optim.momentum"}, {**SURFACE, "y": "loss.name"}]
)
def test_without_a_surface_over_ranges_there_is_no_plot(surface: Any) -> None:
    assert surface_plot(surface, TRIALS, SPACE) is None


def test_axes_end_where_the_ranges_end() -> None:
    plain, log = range_axis({"low": 0.1, "high": 3.7}), range_axis(SPACE["optim.lr"])  # type: ignore[arg-type]
    assert (plain.low, plain.high) == (0.1, 3.7)
    assert [tick.text for tick in log.ticks][0::2][0] == "0.0001"
    assert log.at(-3) == 50
