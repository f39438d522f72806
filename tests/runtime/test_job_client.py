"""The cluster of a submitted job is checked in seconds; attempts and exit statuses."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from canopy.errors import ClusterError, ConfigError
from canopy.runtime.job_client import LogFollower, exit_status, jobs_address, next_attempt, open_client


@contextmanager
def service(status: int, body: object) -> Iterator[str]:
    """A server on loopback that answers every GET in the same way; its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            """No lines in the tests' output."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("address", ["", "auto", "127.0.0.1:6379", "ray://127.0.0.1:10001", "http://me:pw@h"])
def test_the_address_is_that_of_a_dashboard(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match="RAY_ADDRESS must be the http address") as refused:
        jobs_address()
    assert "pw" not in str(refused.value)


def test_rays_own_variable_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://a:8265")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://b:8265/")
    assert jobs_address() == "http://b:8265"


def test_an_address_that_does_not_answer_is_refused_at_once() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConfigError, match="refused") as refused:
            open_client(address)
    assert "ray dashboard cluster.yaml" in str(refused.value)


def test_another_service_is_refused() -> None:
    with service(200, {"hello": 1}) as address, pytest.raises(ConfigError, match="is not Ray's"):
        open_client(address)
    with service(404, {}) as address, pytest.raises(ConfigError, match="is not Ray's"):
        open_client(address)


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_missing_or_wrong_is_refused(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "planted-token")
    with service(status, {}) as address, pytest.raises(ConfigError, match="The token must be") as refused:
        open_client(address)
    assert "planted-token" not in str(refused.value)


def test_another_version_of_ray_is_refused() -> None:
    answer = {"version": "4", "ray_version": "2.40.0", "ray_commit": "x", "session_name": "s"}
    with service(200, answer) as address, pytest.raises(ConfigError, match="Ray's version") as refused:
        open_client(address)
    assert f"{ray.__version__} here, 2.40.0 at" in str(refused.value)


class Answers:
    """Stands for Ray's client: jobs as it lists them."""

    def __init__(self, **statuses: str) -> None:
        from ray.job_submission import JobStatus

        self._jobs = [
            SimpleNamespace(
                submission_id=name.replace("_", "-"), status=JobStatus(status), entrypoint="python a"
            )
            for name, status in statuses.items()
        ]

    def list_jobs(self) -> list[Any]:
        return self._jobs


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ({}, ("first", False)),
        ({"other": "RUNNING", "first_b": "FAILED"}, ("first", False)),
        ({"first": "FAILED"}, ("first-2", False)),
        ({"first": "STOPPED", "first_2": "FAILED", "first_9": "SUCCEEDED"}, ("first-10", False)),
        ({"first": "FAILED", "first_2": "RUNNING"}, ("first-2", True)),
        ({"first": "PENDING"}, ("first", True)),
    ],
)
def test_a_name_goes_on_with_its_next_attempt(jobs: dict[str, str], expected: tuple[str, bool]) -> None:
    assert next_attempt(Answers(**jobs), "first", "python a") == expected


def test_a_name_that_runs_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match="--submission-id must not be") as refused:
        next_attempt(Answers(first="FAILED", first_2="RUNNING"), "first", "python b")
    assert "ray job stop first-2" in str(refused.value)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 2, 2),
        ("FAILED", 130, 130),
        ("FAILED", -9, 137),
        ("FAILED", None, 1),
        ("STOPPED", None, 143),
    ],
)
def test_the_exit_status_is_that_of_the_job(status: str, code: int | None, expected: int) -> None:
    assert exit_status(SimpleNamespace(status=status, driver_exit_code=code)) == expected


class Unsteady:
    """Stands for Ray's client: a log whose connection breaks before each of ``cuts``."""

    def __init__(self, log: str, cuts: list[int]) -> None:
        self._log, self._cuts = log, cuts

    async def tail_job_logs(self, _: str) -> Any:
        end = self._cuts.pop(0) if self._cuts else len(self._log)
        for start in range(0, end, 3):
            yield self._log[start : min(start + 3, end)]
        if end < len(self._log):
            raise RuntimeError("WebSocket connection closed unexpectedly")

    def get_job_info(self, _: str) -> Any:
        from ray.job_submission import JobStatus

        return SimpleNamespace(status=JobStatus.SUCCEEDED, driver_exit_code=0)


def test_a_lost_connection_repeats_nothing_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canopy.runtime.job_client.PAUSE_S", 0.01)
    written: list[str] = []
    assert LogFollower(Unsteady("0123456789abcdef", [7, 4, 11]), "j", written.append).follow() == 0
    assert "".join(written) == "0123456789abcdef"


def test_a_cluster_that_stays_away_ends_the_following(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canopy.runtime.job_client.RECONNECT_S", 0.1)
    monkeypatch.setattr("canopy.runtime.job_client.PAUSE_S", 0.01)
    with pytest.raises(ClusterError, match="Job j must be reachable"):
        LogFollower(Unsteady("0123456789", [4] * 99), "j", lambda _: None).follow()
