"""Jobs through the Jobs API, on a Ray head of the test's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
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


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """Address of the dashboard of a private head on which ``python`` is the tests' own."""
    with private_head(tmp_path, {"RAY_AUTH_MODE": "disabled", "PATH": path_to_python()}) as address:
        yield address


def path_to_python() -> str:
    """A PATH on which ``python`` has Canopy's packages, as on a node."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def started_submit(address: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """``canopy submit`` as a process, from the top of the repository."""
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": address, **variables}
    env.pop("RAY_API_SERVER_ADDRESS", None)
    command = [sys.executable, "jobs/submit.py", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=pipe, stderr=pipe, text=True)


def canopy_submit(address: str, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """Exit status, output and errors of ``canopy submit``."""
    process = started_submit(address, *arguments, **variables)
    out, error = process.communicate(timeout=500)
    return process.returncode, out, error


def test_canopy_submit_follows_the_job_and_ends_with_its_status(cluster: str, tmp_path: Path) -> None:
    file = str(write_config(tiny_experiment(variants=1, trials=0, epochs=1), tmp_path / "c.yaml"))
    arguments = ["prepare", "--config", file, "--run-dir", str(tmp_path / "run"), "--submission-id", "first"]
    status, out, error = canopy_submit(
        cluster, *arguments, "--data.source", "kaggle", "--data.root", "/nowhere"
    )
    assert status == 2, out + error
    assert "first submitted to" in out
    assert "error: data.root" in out, "the job's own log"
    assert "first ended with status 2" in out

    status, out, error = canopy_submit(cluster, *arguments)
    assert status == 0, out + error
    assert "first-2 submitted to" in out
    assert "first-2 ended with status 0" in out
    assert read_json(tmp_path / "run" / "prepare" / "done.json")
    assert error == ""


@pytest.mark.slow
def test_a_job_goes_on_without_its_terminal_and_can_be_stopped(cluster: str, tmp_path: Path) -> None:
    config = tiny_experiment(variants=1, trials=0, epochs=500)
    file = str(write_config(config, tmp_path / "c.yaml"))
    arguments = ["pipeline", "--config", file, "--run-dir", str(tmp_path / "run"), "--submission-id", "long"]
    progress = tmp_path / "run" / "train" / "resnet" / "fold0" / "progress.json"

    first = started_submit(cluster, *arguments)
    wait_for_file(progress, first)
    first.send_signal(signal.SIGINT)
    out, error = first.communicate(timeout=60)
    assert first.returncode == 130, out + error
    assert "long goes on without this terminal" in error
    assert "ray job stop long" in error
    assert "Traceback" not in error

    status, out, _ = canopy_submit(cluster, *arguments, "--no-wait")
    assert (status, "long runs already at" in out) == (0, True)
    status, _, error = canopy_submit(cluster, *arguments, "--folds", "3")
    assert (status, "--submission-id must not be" in error) == (2, True)

    second = started_submit(cluster, *arguments)
    assert second.stdout is not None
    assert any("long runs already at" in line for line in second.stdout), "it follows before the stop"
    stop = [RAY, "job", "stop", "--address", cluster, "long"]
    subprocess.run(stop, env={**os.environ, "RAY_AUTH_MODE": "disabled"}, check=True, timeout=120)
    out, error = second.communicate(timeout=180)
    assert second.returncode == 143, out + error
    assert "checkpoint" in out
    status, out, _ = canopy_submit(cluster, *arguments, "--no-wait")
    assert (status, "long-2 submitted to" in out) == (0, True)
    subprocess.run([*stop[:-1], "long-2"], env={**os.environ, "RAY_AUTH_MODE": "disabled"}, timeout=120)


def wait_for_file(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until ``path`` exists."""
    end = time.monotonic() + 400
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.5)


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
        job_of = ("prepare", "--run-dir", str(tmp_path / "run"), "--no-wait")
        nobody = {"HOME": str(tmp_path)}
        for variables in (
            nobody,
            {**nobody, "RAY_AUTH_MODE": "token"},
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "c" * 64},
        ):
            status, out, error = canopy_submit(address, *job_of, **variables)
            assert status == 2, out + error
            assert error.startswith("error: The token must be the one of the cluster"), error
            assert error.count("\n") == 1
        right = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        status, out, error = canopy_submit(address, *job_of, "--dry-run", **right)
        assert status == 0, out + error
        assert token not in out + error
        assert not marker.exists()
    assert token not in (tmp_path / "head.log").read_text()
