"""``canopy serve`` as a process: what is refused before Ray starts, and its end by a signal."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
import requests
from tests.inference.service.conftest import TOKEN, free_port
from tests.inference.service.pictures import picture
from tests.support import end_job, start_job, wait_until

from canopy.cli.main import main
from canopy.inference.service.run import failure_of
from canopy.storage.run_dir import RunDir


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message with which ``canopy serve`` ends."""
    assert main(["serve", *arguments]) == 2
    return capsys.readouterr().err


def test_bad_options_are_refused_before_anything_starts(
    finished: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("CANOPY_SERVE_TOKEN", raising=False)
    assert "error: CANOPY_SERVE_TOKEN must hold a token" in refused(capsys, "--model", finished.root)
    monkeypatch.setenv("CANOPY_SERVE_TOKEN", TOKEN)
    assert "must hold a config.yaml" in refused(capsys, "--model", str(tmp_path))
    assert "must have distinct names" in refused(capsys, "--model", "a", "b")
    assert "max_replicas must be at least" in refused(capsys, "--model", finished.root, "--min-replicas", "2")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert "--port must be free" in refused(capsys, "--model", finished.root, "--port", port)
    assert "--port must be free" in refused(capsys, "--model", finished.root, "--port", "99999")
    assert TOKEN not in capsys.readouterr().err


@pytest.mark.slow
def test_the_first_error_counts_where_ray_serve_itself_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError("the controller died")

    monkeypatch.setattr("ray.serve.status", fails)
    reason, remedy = failure_of(OSError("Traceback\n  address already in use"))
    assert reason == "address already in use"
    assert remedy.startswith("Look at the log")


def test_it_serves_until_sigterm(finished: RunDir, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "CANOPY_SERVE_TOKEN": TOKEN}
    arguments = ["--model", finished.root, "--port", str(port), "--cpus-per-replica", "0.5"]
    job = start_job("serve", *arguments, env=env, log=log)
    try:
        wait_until("the address", lambda: b"serves default" in log.read_bytes(), job, log)
        answer = requests.post(
            f"http://127.0.0.1:{port}/v1/predict",
            files=[("images", ("a.png", picture()))],
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        os.kill(job.pid, signal.SIGTERM)
        assert job.wait(timeout=60) == 143, log.read_text()
    finally:
        end_job(job)
    said = log.read_text()
    assert TOKEN not in said
    assert "Traceback" not in said, said
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5)
