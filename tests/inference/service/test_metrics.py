"""Metrics of the service: batches, positives by label, requests."""

from __future__ import annotations

import time
import urllib.request

import numpy as np
import pytest
import ray

from canopy.inference.service.metrics import HttpMetrics, ModelMetrics


@pytest.mark.usefixtures("ray_here")
def test_counts_reach_prometheus() -> None:
    (node,) = ray.nodes()  # type: ignore[no-untyped-call]
    page = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    model, http = ModelMetrics("unit-ü", ["road", "water"]), HttpMetrics()
    decisions_NK = np.array([[1, 0], [1, 0], [0, 0]], np.uint8)
    model.batch(3, decisions_NK)
    model.batch(2, decisions_NK[:2])
    http.request("/v1/unit", 200, 0.03)
    end, lines = time.monotonic() + 60, list[str]()
    while time.monotonic() < end and len(lines) < 4:
        time.sleep(1)
        with urllib.request.urlopen(page, timeout=10) as answer:
            text = answer.read().decode()
        ours = [line for line in text.splitlines() if line.startswith("ray_canopy_serve_") and "unit" in line]
        parts = ("images", "positives", "batch_size_count", "request_seconds_count")
        lines = [line for line in ours if any(f"serve_{part}" in line for part in parts)]
    values = {line.partition("{")[0]: (line, float(line.rpartition(" ")[2])) for line in lines}
    assert values["ray_canopy_serve_images_total"][1] == 5
    line, positives = values["ray_canopy_serve_positives_total"]
    assert positives == 4
    assert "road" in line
    assert values["ray_canopy_serve_batch_size_count"][1] == 2
    assert values["ray_canopy_serve_request_seconds_count"][1] == 1
