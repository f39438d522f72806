"""Jobs through the Jobs API, on a Ray head of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tests.clusters import RAY, private_head
from tests.support import REPOSITORY, read_json, tiny_experiment, write_config

from canopy.config import fingerprint


def submit(address: str, job: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Submit a job from the top of the repository, as the README shows."""
    command = [RAY, "job", "submit", "--address", address]
    command += ["--runtime-env", "platform/deploy/runtime_env.yaml", "--"]
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    return subprocess.run(
        [*command, sys.executable, f"jobs/{job}.py", *arguments],
        cwd=REPOSITORY,
        env=env,
        capture_output=True,
        text=True,
        timeout=500,
    )


def test_a_submitted_stage_writes_the_run_directory(head: str, tmp_path: Path) -> None:
    config = tiny_experiment(variants=1, trials=0, epochs=1)
    file = write_config(config, tmp_path / "c.yaml")

    refused = submit(head, "prepare", "--config", str(file), "--run-dir", "runs/relative")
    assert refused.returncode != 0
    assert "--run-dir must be absolute or a URI in a submitted job" in refused.stdout + refused.stderr

    done = submit(head, "prepare", "--config", str(file), "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout + done.stderr
    assert read_json(tmp_path / "run" / "prepare" / "done.json")


@pytest.mark.slow
def test_a_submitted_pipeline_gives_the_same_run(head: str, tmp_path: Path) -> None:
    config = tiny_experiment(variants=1, trials=0, epochs=1)
    file = write_config(config, tmp_path / "c.yaml")
    done = submit(head, "pipeline", "--config", str(file), "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Best reachable" in done.stdout
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["config_hash"] == fingerprint(config)
    assert set(summary["members"]) == {"resnet"}


def answer(url: str, token: str | None, body: bytes | None = None) -> int:
    """Status of a request with this token; with a ``body`` it is a POST."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_a_client_without_the_token_is_turned_away(tmp_path: Path) -> None:
    token, marker = "b" * 64, tmp_path / "ran"
    job = json.dumps({"entrypoint": f"touch {marker}"}).encode()
    with private_head(tmp_path, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}) as address:
        for path, body in (("/api/jobs/", job), ("/api/jobs/", None), ("/nodes?view=summary", None)):
            for wrong in (None, "c" * 64):
                assert answer(address + path, wrong, body) in (401, 403), (path, wrong)
        assert answer(f"{address}/api/jobs/", token) == 200
        assert not marker.exists()
    assert token not in (tmp_path / "head.log").read_text()
