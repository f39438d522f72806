"""A real Prometheus, set up by ``canopy monitor``, scrapes a real run: every panel has data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.clusters import free_ports
from tests.support import REPOSITORY, end_job, start_job, tiny_experiment, wait_until, write_config

from canopy.monitoring.setup import DISCOVERY_FILE

pytestmark = pytest.mark.slow
PATIENCE_S = 600
NEEDS_GPU = ("GPU utilization of each rank", "GPU memory of each rank")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path for Ray's session, whose sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="cmon", ignore_cleanup_errors=True) as name:
        yield Path(name)


def queries(board: str) -> dict[str, list[str]]:
    """The queries of each panel with its variables filled in, by the panel's title."""
    text = (REPOSITORY / "platform" / "deploy" / "monitoring" / f"{board}.json").read_text("utf-8")
    panels = json.loads(text.replace("$run", ".*").replace("$variant", ".*"))["panels"]
    return {p["title"]: [t["expr"] for t in p["targets"]] for p in panels if "targets" in p}


def ask(port: int, query: str) -> list[Any]:
    """Prometheus' answer to an instant query."""
    url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        content = json.load(answer)
    assert content["status"] == "success", content
    result: list[Any] = content["data"]["result"]
    return result


def test_every_panel_has_data_while_a_run_goes_on_and_none_afterwards(folder: Path, tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian: apt install prometheus)")
    config = write_config(tiny_experiment(variants=1, epochs=400, trials=2), tmp_path / "c.yaml")
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(folder)}
    limits = ["--max-node-hours", "100", "--max-cost", "100"]
    arguments = ["--config", str(config), "--run-dir", str(tmp_path / "run"), *limits]
    job = start_job("pipeline", *arguments, env=env, log=tmp_path / "job.log")
    session, (port,) = folder / "ray" / "session_latest", free_ports(1)
    log, server = tmp_path / "prometheus.log", None
    try:
        job_log, discovered = tmp_path / "job.log", (session / DISCOVERY_FILE).is_file
        wait_until("Ray's discovery file", discovered, job, job_log, PATIENCE_S)
        command = [sys.executable, str(REPOSITORY / "jobs" / "monitor.py"), "--out", str(tmp_path / "mon")]
        command += ["--session", str(session), "--start", "--port", str(port)]
        with log.open("wb") as out:
            server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        wanted = {title: query for title, query in queries("training").items() if title not in NEEDS_GPU}
        assert len(wanted) >= 16
        seen: dict[str, Any] = {}

        def every_panel() -> bool:
            assert server is not None
            assert server.poll() is None, log.read_text()
            try:
                for title in wanted.keys() - seen.keys():
                    found = [series for query in wanted[title] for series in ask(port, query)]
                    seen.update({title: found} if found else {})
            except OSError:  # not listening yet
                return False
            return seen.keys() == wanted.keys()

        wait_until("data in every panel", every_panel, job, job_log, PATIENCE_S)
        (step,) = ask(port, "max by (run, variant, fold, rank) (ray_canopy_step)")
        run = str(tmp_path / "run")
        assert step["metric"] == {"run": run, "variant": "resnet", "fold": "0", "rank": "0"}
        rules = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/rules", timeout=10))
        (group,) = rules["data"]["groups"]
        assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
        job.terminate()
        assert job.wait(timeout=PATIENCE_S) == 143, (tmp_path / "job.log").read_text()
        end = time.monotonic() + 120
        while left := ask(port, '{__name__=~"ray_canopy_.*"}'):
            assert time.monotonic() < end, left
            time.sleep(2)
    finally:
        end_job(job)
        if server is not None:
            server.terminate()
            server.wait(timeout=60)
