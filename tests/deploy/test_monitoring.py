"""Alert rules and dashboards: the names in them exist, and promtool accepts them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from tests.support import REPOSITORY

from canopy.runtime.metrics import DRIVER_GAUGES
from canopy.train.monitor.ray_metrics import EPOCH_GAUGES, LIVE_GAUGES

MONITORING = REPOSITORY / "platform" / "deploy" / "monitoring"
SERVICE = REPOSITORY / "platform" / "canopy" / "inference" / "service" / "metrics.py"


def expressions() -> dict[str, str]:
    """Every expression of the rules and dashboards, by its place."""
    found: dict[str, str] = {}
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text("utf-8"))["groups"]:
        found |= {f"alerts: {rule['alert']}": rule["expr"] for rule in group["rules"]}
    for path in MONITORING.glob("*.json"):
        board = json.loads(path.read_text("utf-8"))
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                found[f"{path.stem}: {panel['title']} {target['refId']}"] = target["expr"]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                found[f"{path.stem}: ${variable['name']}"] = variable["query"]["query"]
    return found


def exported_names() -> set[str]:
    """The names under which Prometheus sees Canopy's metrics."""
    gauges = {name for name, _ in (LIVE_GAUGES | EPOCH_GAUGES).values()} | set(DRIVER_GAUGES)
    names = set(gauges)
    for kind, name in re.findall(r'(Counter|Histogram)\(\s*"(canopy_\w+)"', SERVICE.read_text("utf-8")):
        ends = ("_total",) if kind == "Counter" else ("_bucket", "_sum", "_count")
        names |= {name + end for end in ends}
    return {f"ray_{name}" for name in names}


def test_every_metric_in_rules_and_dashboards_exists() -> None:
    found = expressions()
    assert len(found) > 25
    names = exported_names()
    for place, expression in found.items():
        used = set(re.findall(r"ray_\w+", expression))
        assert used, place
        assert used <= names, place


def test_every_gauge_is_shown() -> None:
    """A metric that no panel shows is of no use."""
    shown = set(re.findall(r"ray_\w+", " ".join(expressions().values())))
    gauges = {f"ray_{name}" for name in DRIVER_GAUGES} | {f"ray_{name}" for name, _ in LIVE_GAUGES.values()}
    assert gauges - shown == set()


def test_panels_have_distinct_places_and_say_what_they_show() -> None:
    for path in MONITORING.glob("*.json"):
        board: dict[str, Any] = json.loads(path.read_text("utf-8"))
        cells = [
            (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
            for panel in board["panels"]
            for x in range(panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["h"])
        ]
        assert len(cells) == len(set(cells)), path.name
        assert max(x for x, _ in cells) < 24, path.name
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        assert all(panel["description"].endswith(".") for panel in board["panels"] if panel["type"] != "row")


def test_every_alert_has_a_case_that_makes_it_fire() -> None:
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text("utf-8"))["groups"]
    cases = yaml.safe_load((MONITORING / "alerts.test.yml").read_text("utf-8"))["tests"]
    fired = {
        case["alertname"] for test in cases for case in test["alert_rule_test"] if case.get("exp_alerts")
    }
    assert {rule["alert"] for group in rules for rule in group["rules"]} == fired


@pytest.mark.parametrize("command", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")])
def test_promtool_accepts_the_rules(command: tuple[str, ...]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt install prometheus)")
    done = subprocess.run([promtool, *command], cwd=MONITORING, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
