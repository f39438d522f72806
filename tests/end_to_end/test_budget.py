"""A run that reaches the limit of its node-hours ends with a checkpoint and goes on under a higher limit."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.support import committed, end_job, read_json, start_job, tiny_experiment, wait_until, write_config

pytestmark = pytest.mark.slow
PATIENCE_S = 600
LIMIT_S = 100
"""Seconds after which the limit ends the run: the training has begun by then."""


def progress(run: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(run / "train" / "resnet" / "fold0" / "progress.json")
    except (FileNotFoundError, ValueError):
        return {}
    return found


def test_the_limit_ends_a_run_with_a_checkpoint(tmp_path: Path) -> None:
    config, run = tiny_experiment(variants=1, epochs=3000, trials=0), tmp_path / "run"
    arguments = ["--config", str(write_config(config, tmp_path / "c.yaml")), "--run-dir", str(run)]
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    limit = ["--max-node-hours", f"{LIMIT_S / 3600:.5f}"]
    job = start_job("pipeline", *arguments, *limit, env=env, log=tmp_path / "first.log")
    try:
        assert job.wait(timeout=PATIENCE_S) == 1, (tmp_path / "first.log").read_text()
        text = (tmp_path / "first.log").read_text()
        assert "error: Stopped: the run has used 0.03 node-hours, its limit is 0.02778" in text
        assert "resnet is kept at epoch" in text
        assert "Raise the limit and start again to go on from there." in text
        assert "Traceback" not in text
        assert committed(run)
        kept = progress(run)["kept"]
        assert kept >= 1
        assert read_json(run / "cost.json")["node_hours"] >= LIMIT_S / 3600

        job = start_job("pipeline", *arguments, *limit, env=env, log=tmp_path / "second.log")
        assert job.wait(timeout=PATIENCE_S) == 2
        assert (
            "--max-node-hours must be above what the run has used already"
            in (tmp_path / "second.log").read_text()
        )

        log = tmp_path / "third.log"
        job = start_job("pipeline", *arguments, "--max-node-hours", "1", env=env, log=log)
        wait_until("a later epoch", lambda: (progress(run).get("kept") or 0) > kept, job, log, PATIENCE_S)
        assert progress(run)["kept"] < kept + 200, "it went on from the checkpoint"
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=PATIENCE_S) == 143, log.read_text()
        assert read_json(run / "cost.json")["node_hours"] > LIMIT_S / 3600
    finally:
        end_job(job)
