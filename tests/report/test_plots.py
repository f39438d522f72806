"""Geometry of the figures."""

from __future__ import annotations

import pytest

from canopy.report import plots


def test_the_timeline_describes_concurrency() -> None:
    spans = {"a": (100, 160), "b": (110, 200), "c": (150, 170)}
    found = plots.timeline({name: {"start": s, "end": e} for name, (s, e) in spans.items()})
    assert found is not None
    assert found.concurrency == "up to 3 at the same time, 1 min with two or more"  # from 110 to 170
    assert [bar.text for bar in found.bars] == ["1 min", "1 min 30 s", "20 s"]
    assert (found.bars[0].start, found.bars[1].start, found.bars[2].start) == (0, 10, 50)
    one_by_one = plots.timeline({"a": {"start": 0, "end": 10}, "b": {"start": 10, "end": 20}})
    assert one_by_one is not None
    assert one_by_one.concurrency == "one after the other"
    assert plots.timeline({"without times": {}}) is None


def test_stacked_bars_add_up_and_keep_the_color_of_their_position() -> None:
    bars = plots.stacked_bars({"a": 1.0, "unused": 0.0, "b": 3.0, "unknown": None})
    assert [(b.name, b.start, b.size, b.color) for b in bars] == [("a", 0, 25, 0), ("b", 25, 75, 2)]


def test_curves_mark_the_best_epoch_and_skip_values_that_are_not_numbers() -> None:
    history = [{"epoch": e, "val_map": v} for e, v in ((0, 0.2), (1, float("nan")), (2, 0.6), (3, 0.5))]
    panel = plots.curves({"a": history, "b": []}, "val_map", "mAP", {"a": 2})
    assert panel is not None
    (line,) = panel.lines
    assert len(line.points.split()) == 3
    assert line.text == "0.600 at epoch 2"
    assert line.best is not None
    assert line.best[0] == pytest.approx(200 / 3, abs=0.01)
    assert plots.curves({"a": history}, "train_loss", "Loss", {}) is None
