from __future__ import annotations

from typing import Any

import pytest

from canopy.report import sweep_plots


def trial(number: int, score: float | None, curve: list[float], **values: Any) -> dict[str, Any]:
    named = {name.replace("_", ".", 1): value for name, value in values.items()}
    return {
        **{"variant": "a", "number": number, "values": named, "score": score, "epochs": len(curve)},
        **{"stopped_early": len(curve) < 3, "error": None if score else "killed", "curve": curve},
    }


TRIALS = [
    trial(0, 0.6, [0.3, 0.5, 0.6], loss_name="bce", optim_lr=0.001),
    trial(1, 0.7, [0.3, 0.7], loss_name="focal", optim_lr=0.01, loss_gamma=2.0),
    trial(2, 0.65, [0.4, 0.5, 0.65], loss_name="focal", optim_lr=0.1, loss_gamma=0.0),
    trial(3, None, [], loss_name="focal", optim_lr=0.1, loss_gamma=4.0),
]


SPACE = {
    "loss.name": ["bce", "focal"],
    "optim.lr": {"low": 0.001, "high": 0.1, "log": True},
    "loss.gamma": {"low": 0, "high": 4, "log": False},
}


def points(line: sweep_plots.TrialLine) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (point.split(",") for point in line.points.split())]


def test_each_trial_crosses_every_axis_and_the_best_complete_one_is_drawn_last() -> None:
    plot = sweep_plots.parallel_plot(TRIALS, SPACE)
    assert plot is not None
    assert [axis.name for axis in plot.axes] == ["name", "lr", "gamma", "score"]
    assert [axis.at for axis in plot.axes] == [0, pytest.approx(33.333), pytest.approx(66.667), 100]
    assert len(plot.lines) == 3, "a failed trial has no score"
    assert [line.stopped for line in plot.lines] == [True, False, False]
    best = plot.lines[-1]
    assert (best.best, best.text) == (True, "name focal, lr 0.1, γ 0: 0.650")
    assert not any(line.best for line in plot.lines[:-1])
    assert plot.lines[0].shade == 100, "the stopped one has the highest score, and still is not the best"


def test_values_are_placed_by_their_kind() -> None:
    plot = sweep_plots.parallel_plot(TRIALS, SPACE)
    assert plot is not None
    by_text = {line.text.split(":")[0]: points(line) for line in plot.lines}
    bce, focal = by_text["name bce, lr 0.001"], by_text["name focal, lr 0.01, γ 2"]
    assert (bce[0][1], focal[0][1]) == (100, 0), "two choices, in the order of the space: bottom and top"
    assert (bce[1][1], focal[1][1]) == (100, 50), "a logarithmic axis over two decades"
    assert bce[2][1] == sweep_plots.UNREAD


@pytest.mark.parametrize("values", [[None], ["a"], [True, False], [None, "a"], [2, 2]])
def test_any_values_have_a_scale(values: list[Any]) -> None:
    for domain in (None, ["a"], {"low": 0, "high": 1, "log": False}):
        scale = sweep_plots.field_scale(values, domain)
        assert all(0 <= scale.down(value) <= sweep_plots.UNREAD for value in values)


def test_curves_end_where_trials_were_stopped() -> None:
    plot = sweep_plots.curves_plot(TRIALS)
    assert plot is not None
    stopped = plot.lines[0]
    assert stopped.end[0] == 50.0
    assert stopped.text.endswith("stopped after epoch 2")
    assert len(points(plot.lines[-1])) == 3


def test_without_scores_there_is_no_figure() -> None:
    assert sweep_plots.parallel_plot(TRIALS[3:], SPACE) is None
    assert sweep_plots.curves_plot(TRIALS[3:]) is None
    assert sweep_plots.finals_plot([]) is None
    assert sweep_plots.importance_plot([]) is None


def test_intervals_share_an_axis_with_zero() -> None:
    plot = sweep_plots.importance_plot(
        [
            {"field": "optim.lr", "value": 0.8, "low": 0.4, "high": 1.0},
            {"field": "loss.gamma", "value": 0.0, "low": -0.2, "high": 0.2},
        ]
    )
    assert plot is not None
    first, second = plot.rows
    assert (first.strong, second.strong) == (True, False)
    assert second.at == plot.zero
    assert first.low is not None
    assert first.low > plot.zero
    assert first.text == "+0.80"


def test_a_focal_sweep_of_the_former_form_has_no_studies() -> None:
    assert sweep_plots.study_views(None, [], {}) == []
    assert sweep_plots.study_views({"reference": "a", "best": {}, "trials": 1}, [], {}) == []
