"""The meter of node-hours and cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from canopy.config import BudgetConfig
from canopy.cost.meter import Meter, Spent
from canopy.cost.prices import load_prices
from canopy.storage import files


def test_nodes_are_charged_for_the_time_since_the_last_look() -> None:
    meter = Meter(load_prices(None), Spent(1.0, 2.0))
    meter.update({"head": 1}, now=100.0)
    assert meter.spent == Spent(1.0, 2.0), "nothing was seen before the first look"
    meter.update({"head": 1, "gpu1-spot": 2}, now=100.0 + 1800)
    assert meter.spent.node_hours == pytest.approx(1.0 + 1.5)
    assert meter.spent.cost == pytest.approx(2.0 + 0.5 * (0.42 + 2 * 0.62))


def test_a_group_without_a_price_is_charged_like_the_dearest(caplog: pytest.LogCaptureFixture) -> None:
    meter = Meter(load_prices(None))
    for now in (0.0, 3600.0, 7200.0):
        meter.update({"tpu": 1}, now)
    assert meter.spent.cost == pytest.approx(2 * 4.62)
    assert len(caplog.records) == 1


def test_the_limit_that_is_reached_is_named() -> None:
    meter = Meter(load_prices(None), Spent(3.0, 5.0))
    assert meter.over(BudgetConfig()) is None
    assert meter.over(BudgetConfig(max_cost=5.1, max_node_hours=3.1)) is None
    assert meter.over(BudgetConfig(max_cost=5.0)) == (
        "the run has cost 5.00 USD, its limit is 5 (--max-cost)"
    )
    assert meter.over(BudgetConfig(max_node_hours=2)) == (
        "the run has used 3.00 node-hours, its limit is 2 (--max-node-hours)"
    )


def test_what_was_spent_survives_and_a_damaged_file_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cost.json"
    assert Spent.read(str(path)) == Spent()
    files.write_json(str(path), Spent(1.5, 2.25).to_json())
    assert Spent.read(str(path)) == Spent(1.5, 2.25)
    assert not caplog.records
    path.write_text("{}")
    assert Spent.read(str(path)) == Spent()
    assert "could not be read" in caplog.text
