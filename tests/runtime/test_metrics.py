"""Gauges of the driver."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from tests.ray_metrics_page import metric_values, wait_for_values

from canopy.runtime.console import Console
from canopy.runtime.logging import log_context
from canopy.runtime.metrics import set_gauge


def test_without_ray_nothing_happens_and_ray_is_not_imported() -> None:
    code = (
        "import sys; from canopy.runtime.metrics import set_gauge; set_gauge('canopy_cost', 1.0); "
        "print('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_an_unknown_gauge_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        set_gauge("canopy_unknown", 1.0)


@pytest.mark.usefixtures("ray_here")
def test_the_progress_of_a_stage_reaches_prometheus(capsys: pytest.CaptureFixture[str]) -> None:
    console, run = Console(), "/runs/metrics ü"

    def seen() -> dict[tuple[str, ...], float]:
        with log_context(run=run):
            console.count("prepare", "images", 30, 40, since=time.monotonic() - 9, every_s=0)
        return metric_values("canopy_stage_done", r"/runs/metrics \\xfc", "stage", "what")

    assert wait_for_values(seen, {("prepare", "images"): 30}) == {("prepare", "images"): 30}
    total = metric_values("canopy_stage_total", r"/runs/metrics \\xfc", "stage", "what")
    assert total == {("prepare", "images"): 40}
