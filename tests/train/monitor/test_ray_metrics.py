"""Training metrics as Ray metrics."""

from __future__ import annotations

import time
import urllib.request

import pytest
import ray
from tests.train.monitor.records import EPOCH

from canopy.train.monitor.ray_metrics import RayMetrics


@pytest.mark.usefixtures("ray_here")
def test_metrics_reach_prometheus() -> None:
    tags = {"run": "/runs/xü", "variant": "resnet", "fold": "0", "rank": "1"}
    metrics = RayMetrics(tags)
    (node,) = ray.nodes()  # type: ignore[no-untyped-call]
    page = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    wanted = {
        "canopy_images_per_s",
        "canopy_data_wait_share",
        "canopy_eta_seconds",
        "canopy_val_macro_f1",
        "canopy_step",
    }
    end, step, lines = time.monotonic() + 60, 0, dict[str, str]()
    while time.monotonic() < end and not wanted <= lines.keys():
        step += 2
        metrics.log_live(step, {"images_per_s": 123.0, "wait_share": 0.25, "left_s": 60.0})
        metrics.log_epoch(step, EPOCH)
        time.sleep(1)
        with urllib.request.urlopen(page, timeout=10) as answer:
            text = answer.read().decode()
        # The page also holds the metrics of other trainings in this Ray.
        ours = [line for line in text.splitlines() if line.startswith("ray_canopy_") and "/runs/x" in line]
        lines = {line.partition("{")[0].removeprefix("ray_"): line for line in ours}
    assert wanted <= lines.keys(), lines
    assert lines["canopy_images_per_s"].endswith(" 123.0"), "the rate of the epoch is that of all ranks"
    for key, value in (("variant", "resnet"), ("fold", "0"), ("rank", "1")):
        assert f'{key}="{value}"' in lines["canopy_images_per_s"].lower()
    assert "xfc" in lines["canopy_images_per_s"]


@pytest.mark.usefixtures("ray_here")
def test_any_text_is_a_tag() -> None:
    tags = {"run": "/runs/Wälder\n中 \x1b", "variant": "ü\udcff", "fold": "0", "rank": "0"}
    metrics = RayMetrics(tags)
    metrics.log_live(1, {"images_per_s": 1.0})
    metrics.log_live(2, {"images_per_s": 1.0})
    metrics.log_epoch(2, EPOCH)
    metrics.close()
