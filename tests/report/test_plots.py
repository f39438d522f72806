"""Geometry of the figures, and contact sheets."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from canopy.report import plots


def test_a_linear_axis_has_round_ticks_in_order_within_the_box() -> None:
    axis = plots.linear_axis([0.13, 0.58])
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
    axes = [plots.linear_axis(values), plots.log_axis(values)]
    axes += [plots.score_axis(values)] if max(plots.finite(values), default=0) <= 1 else []
    for axis in axes:
        assert axis.low < axis.high
        for value in plots.finite(values):
            assert 0 <= axis.at(value) <= 100
        assert len(axis.ticks) <= 12


def test_a_logarithmic_axis_spends_the_same_room_on_every_decade() -> None:
    axis = plots.log_axis([3, 40_000])
    assert [tick.text for tick in axis.ticks] == ["1", "10", "100", "1,000", "10,000", "100,000"]
    assert [tick.at for tick in axis.ticks] == [0, 20, 40, 60, 80, 100]
    assert axis.at(0) == 0  # nothing to take the logarithm of


def test_the_timeline_says_how_much_of_it_was_at_the_same_time() -> None:
    spans = {"a": (100, 160), "b": (110, 200), "c": (150, 170)}
    found = plots.timeline({name: {"start": s, "end": e} for name, (s, e) in spans.items()})
    assert found is not None
    assert found.together == "up to 3 at the same time, 1 min with two or more"  # from 110 to 170
    assert [bar.text for bar in found.bars] == ["1 min", "1 min 30 s", "20 s"]
    assert (found.bars[0].start, found.bars[1].start, found.bars[2].start) == (0, 10, 50)
    one_by_one = plots.timeline({"a": {"start": 0, "end": 10}, "b": {"start": 10, "end": 20}})
    assert one_by_one is not None
    assert one_by_one.together == "one after the other"
    assert plots.timeline({"brought from elsewhere": {}}) is None


def test_shares_add_up_and_keep_the_color_of_their_place() -> None:
    bars = plots.shares({"a": 1.0, "unused": 0.0, "b": 3.0, "unknown": None})
    assert [(b.name, b.start, b.size, b.color) for b in bars] == [("a", 0, 25, 0), ("b", 25, 75, 2)]


def test_curves_ring_the_kept_epoch_and_skip_what_is_not_a_number() -> None:
    history = [{"epoch": e, "val_map": v} for e, v in ((0, 0.2), (1, float("nan")), (2, 0.6), (3, 0.5))]
    panel = plots.curves({"a": history, "b": []}, "val_map", "mAP", {"a": 2})
    assert panel is not None
    (line,) = panel.lines
    assert len(line.points.split()) == 3
    assert line.text == "0.600 at epoch 2"
    assert line.kept is not None
    assert line.kept[0] == pytest.approx(200 / 3, abs=0.01)
    assert plots.curves({"a": history}, "train_loss", "Loss", {}) is None


def test_the_sweep_draws_the_best_trial_last_and_strongest() -> None:
    trials: list[dict[str, Any]] = [
        {"gamma": 2.0, "alpha": 0.4, "score": 0.7},
        {"gamma": 0.0, "alpha": 0.6, "score": 0.5},
        {"score": None},
    ]
    found = plots.sweep(trials)
    assert found is not None
    assert [(dot.shade, dot.best) for dot in found.dots] == [(0, False), (100, True)]
    assert plots.sweep([]) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (8, "8 s"), (59.7, "1 min"), (125, "2 min 05 s"), (12_000, "3 h 20 min")],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert plots.duration(seconds) == text


def test_a_contact_sheet_holds_every_chip_where_it_belongs() -> None:
    chips = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (10, 120, 250)])
    png = plots.contact_sheet(
        chips, ["clear", "a caption of many words that has to be cut somewhere", ""], 2, 3
    )
    sheet = np.asarray(Image.open(io.BytesIO(png)))
    assert sheet.shape[1] == 8 + 2 * (48 + 8)
    assert (sheet[8:56, 8:56] == 10).all()
    assert (sheet[8:56, 64:112] == 120).all()
    second_row = (sheet.shape[0] - 8) // 2 + 8
    assert (sheet[second_row : second_row + 48, 8:56] == 250).all()
