"""The same job through the Jobs API: a head of our own on private ports, ended by its process group."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import REPOSITORY, read_json, tiny_experiment, write_config

from canopy.config import fingerprint

RAY = str(Path(sys.executable).with_name("ray"))
START_S = 120


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture
def head(tmp_path: Path) -> Iterator[str]:
    """The dashboard's address of a local head."""
    gcs, dashboard, agent, agent_http, runtime, metrics, client = free_ports(7)
    with tempfile.TemporaryDirectory(prefix="csub", ignore_cleanup_errors=True) as folder:
        ports = f"""--port={gcs} --dashboard-port={dashboard} --dashboard-agent-grpc-port={agent}
            --dashboard-agent-listen-port={agent_http} --runtime-env-agent-port={runtime}
            --metrics-export-port={metrics} --ray-client-server-port={client}"""
        command = [RAY, "start", "--head", "--block", "--num-cpus=4", f"--temp-dir={folder}", *ports.split()]
        command += ["--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1"]
        log = (tmp_path / "head.log").open("wb")
        env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        process = subprocess.Popen(
            command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=tmp_path
        )
        try:
            address = f"http://127.0.0.1:{dashboard}"
            wait_for(f"{address}/api/version", process, tmp_path / "head.log")
            yield address
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            log.close()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until ``url`` answers."""
    end = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.5)


def submit(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As the README says, from the top of the repository."""
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
