"""A training that Ray's memory monitor kills because another process takes the memory."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tests.clusters import PATIENCE_S, memory_threshold
from tests.support import committed, end_job, read_json, start_job, wait_until
from tests.train.checkpoint.test_saver import arguments, experiment

pytestmark = pytest.mark.slow

SPARE_GB = 5.0
"""Memory for the job's own processes, in GB."""
CHUNK = 100 << 20


def test_a_training_killed_for_memory_waits_and_resumes(tmp_path: Path) -> None:
    config = experiment(30, checkpoint_steps=20, max_failures=0, oom_retries=3, oom_wait_s=5)
    run, log = tmp_path / "run", tmp_path / "log"
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": "local"}
    job = start_job("prepare", *arguments(config, run, tmp_path), env=env, log=log)
    assert job.wait(timeout=PATIENCE_S) == 0, log.read_text()
    threshold = memory_threshold(SPARE_GB)
    env |= {"RAY_memory_usage_threshold": threshold, "RAY_memory_monitor_refresh_ms": "100"}
    job = start_job("train", *arguments(config, run, tmp_path), env=env, log=log)
    held: list[bytes] = []
    try:
        wait_until("a checkpoint", lambda: committed(run), job, log, PATIENCE_S)
        end = time.monotonic() + PATIENCE_S
        while "resnet waits: memory ran out on node" not in log.read_text():
            assert job.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            if float(memory_threshold(0)) <= float(threshold):
                held.append(b"\1" * CHUNK)
            time.sleep(0.05)
        held.clear()
        assert job.wait(timeout=PATIENCE_S) == 0, log.read_text()
    finally:
        held.clear()
        end_job(job)
    (line,) = [line for line in log.read_text().splitlines() if "Restart 1 of 3 in 5 s." in line]
    assert "GB used); largest process: " in line
    assert "Lower scale.workers, optim.batch_size" in line
    assert read_json(run / "train" / "resnet" / "fold0" / "facts.json")["resumed"]
    history = read_json(run / "train" / "resnet" / "fold0" / "history.json")
    assert [record["epoch"] for record in history] == list(range(1, 31))
