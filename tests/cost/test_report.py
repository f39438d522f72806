"""The text of an estimate."""

from __future__ import annotations

import pytest

from canopy.config import Experiment
from canopy.cost.estimate import estimate
from canopy.cost.report import estimate_lines


def test_the_text_names_stages_nodes_times_and_the_sum(on_gpus: Experiment) -> None:
    found = estimate(on_gpus, 600)
    text = "\n".join(estimate_lines(found))
    rows = {" ".join(line.split()[:2]): line.split() for line in text.splitlines()}
    assert rows["prepare images"][2:5] == ["1", "1", "cpu"]
    assert rows["sweep resnet"][2:4] == ["trials", "5"]
    assert rows["train resnet"][2] == rows["train efficientnet"][2] == "3"
    assert f"estimate: {found.node_hours:.1f} node-hours, {found.cost:.2f} USD, done after" in text
    shown = [line.split() for line in text.splitlines() if line.startswith(("head", "cpu", "gpu"))]
    assert sum(float(line[-1]) for line in shown) == pytest.approx(found.cost, abs=0.01 * len(shown))
    assert sum(float(line[4]) for line in shown) == pytest.approx(found.node_hours, abs=0.01 * len(shown))
