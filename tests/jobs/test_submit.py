"""The pipeline through the Jobs API, on a Ray head of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.clusters import RAY
from tests.support import REPOSITORY, read_json, tiny_experiment, write_config

from canopy.config import fingerprint


def submit(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Submit ``jobs/pipeline.py`` from the top of the repository, as the README shows."""
    command = [RAY, "job", "submit", "--address", address]
    command += ["--runtime-env", "platform/deploy/runtime_env.yaml", "--"]
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    return subprocess.run(
        [*command, sys.executable, "jobs/pipeline.py", *arguments],
        cwd=REPOSITORY,
        env=env,
        capture_output=True,
        text=True,
        timeout=500,
    )


def test_a_submitted_job_gives_the_same_run(head: str, tmp_path: Path) -> None:
    config = tiny_experiment(variants=1, trials=0, epochs=1)
    file = write_config(config, tmp_path / "c.yaml")

    refused = submit(head, "--config", str(file), "--run-dir", "runs/relative")
    assert refused.returncode != 0
    assert "--run-dir must be absolute or a URI in a submitted job" in refused.stdout + refused.stderr

    done = submit(head, "--config", str(file), "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout + done.stderr
    assert "Best reachable" in done.stdout
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["config_hash"] == fingerprint(config)
    assert set(summary["members"]) == {"resnet"}
