"""The page with the metrics of the tests' Ray, as Prometheus reads it."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable, Mapping

import ray

Values = dict[tuple[str, ...], float]
PATIENCE_S = 60


def metrics_page() -> str:
    """The text of the page."""
    (node,) = ray.nodes()  # type: ignore[no-untyped-call]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def metric_values(name: str, run: str, *tags: str) -> Values:
    """Values of a gauge of one run, by the values of ``tags``."""
    found: Values = {}
    for line in metrics_page().splitlines():
        if line.startswith(f"ray_{name}{{"):
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', line))
            if labels.get("run") == run:
                found[tuple(labels[tag] for tag in tags)] = float(line.rpartition(" ")[2])
    return found


def wait_for_values(seen: Callable[[], Values], wanted: Mapping[tuple[str, ...], float]) -> Values:
    """What ``seen`` returns once it is ``wanted``, or after a minute."""
    end = time.monotonic() + PATIENCE_S
    while (values := seen()) != wanted and time.monotonic() < end:
        time.sleep(0.5)
    return values
