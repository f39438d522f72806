"""Gauges of the driver."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest
import ray
from tests.ray_metrics_page import Values, metric_values, wait_for_values

from canopy.runtime.console import Console
from canopy.runtime.logging import log_context
from canopy.runtime.metrics import forget_gauges, set_gauge


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


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_series_lasts_until_its_run_is_forgotten() -> None:
    def seen() -> Values:
        return metric_values("canopy_cost", "/runs/gone")

    for run in ("/runs/gone", "/runs/stays"):
        set_gauge("canopy_cost", 3.0, run=run)
    assert wait_for_values(seen, {(): 3.0}) == {(): 3.0}
    time.sleep(45)
    assert seen() == {(): 3.0}, "Ray drops a gauge that nobody repeats"
    forget_gauges("/runs/gone")
    assert wait_for_values(seen, {}) == {}
    assert metric_values("canopy_cost", "/runs/stays") == {(): 3.0}
    forget_gauges("/runs/stays")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_series_is_gone_soon_after_its_process() -> None:
    class Driver:
        def set(self) -> None:
            set_gauge("canopy_cost", 3.0, run="/runs/process")

    def seen() -> Values:
        return metric_values("canopy_cost", "/runs/process")

    remote: Any = ray.remote(num_cpus=0)(Driver)
    actor = remote.remote()
    ray.get(actor.set.remote())
    assert wait_for_values(seen, {(): 3.0}) == {(): 3.0}
    ray.kill(actor)
    assert wait_for_values(seen, {}) == {}
