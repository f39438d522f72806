"""Joining Ray: an address where nothing answers is one line, within seconds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from canopy.errors import ClusterError, ConfigError
from canopy.runtime import cluster
from canopy.runtime.cluster import (
    address_to_join,
    check_address,
    connect,
    dashboard_url,
    start_error,
    started_here,
)

CONNECT = "import sys; from canopy.cli import run_job; from canopy.runtime.cluster import connect; "
CONNECT += "sys.exit(run_job(lambda arguments: connect(), []))"


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def greeting_port() -> Iterator[int]:
    """A service that is not Ray: it greets each connection in a line of its own protocol."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(64)
                    connection.sendall(b"220 mail.example.org ESMTP\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=5)


def test_a_job_with_an_address_of_nothing_ends_in_seconds_with_one_line(free_port: int) -> None:
    environment = os.environ | {"RAY_ADDRESS": f"127.0.0.1:{free_port}", "PYTHONPATH": "platform"}
    start = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", CONNECT], env=environment, capture_output=True, text=True)
    assert time.monotonic() - start < 20
    assert ended.returncode == 2
    assert ended.stderr == (
        f"error: RAY_ADDRESS must be the address of a running Ray cluster. Got: 127.0.0.1:{free_port} "
        "(Connection refused). Start the cluster or correct the address; "
        "unset RAY_ADDRESS to start Ray here.\n"
    )


@pytest.mark.parametrize("address", ["ray://user:planted@host:10001", "user:planted@host:6379"])
def test_an_address_with_a_password_is_not_repeated(address: str) -> None:
    with pytest.raises(ConfigError, match=r"before @host:\d+\. Write HOST:PORT only\.") as error:
        check_address(address)
    assert "planted" not in str(error.value)


@pytest.mark.parametrize("address", ["127.0.0.1", "http://127.0.0.1", ":6379", "host:0", "host:99999", "a:b"])
def test_a_malformed_address(address: str) -> None:
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS must .*\(not HOST:PORT\)"):
        check_address(address)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_a_service_that_is_not_ray(greeting_port: int, form: str) -> None:
    with pytest.raises(ConfigError, match="the service there is not Ray"):
        check_address(form.format(greeting_port))


def test_a_service_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PROBE_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(ConfigError, match="timed out"):
        check_address(f"127.0.0.1:{server.getsockname()[1]}")


def test_an_unknown_host() -> None:
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS must .*no-such-host\.invalid:6379"):
        check_address("no-such-host.invalid:6379")


@pytest.mark.usefixtures("ray_here")
def test_the_address_of_a_running_ray_is_accepted() -> None:
    import ray

    check_address("")
    check_address(ray.get_runtime_context().gcs_address)
    connect()  # joined already
    assert started_here()
    assert dashboard_url() is None


def test_a_failed_start_is_one_line_with_the_reason() -> None:
    slow = Exception("The current node timed out during startup. This could happen because\nmany lines")
    error = start_error("", slow)
    assert isinstance(error, ClusterError)
    assert error.exit_status == 1
    assert "\n" not in str(error)
    assert str(error).startswith("Ray must start on this machine. Got: The current node timed out")
    assert str(start_error("10.0.0.1:6379", RuntimeError("Version mismatch"))).startswith(
        "The Ray cluster at 10.0.0.1:6379 must accept this job. Got: Version mismatch. "
    )
    assert start_error("auto", ConnectionError("Could not find any running Ray instance.")).exit_status == 2


def test_the_logs_of_a_failed_start_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    for variable, place in (("", "/tmp/ray"), ("TMPDIR", "/large/ray"), ("RAY_TMPDIR", "/scratch/ray")):
        if variable:
            monkeypatch.setenv(variable, place.removesuffix("/ray"))
        assert f"Look at Ray's logs in {place}; often memory" in str(start_error("", RuntimeError("x")))


def test_a_ray_that_cannot_start_is_one_line(tmp_path: Path) -> None:
    """A temporary directory of Ray that is a file stands for every failure of a local start."""
    file = tmp_path / "file"
    file.touch()
    environment = os.environ | {"RAY_TMPDIR": str(file), "PYTHONPATH": "platform"}
    environment.pop("RAY_ADDRESS", None)
    ended = subprocess.run([sys.executable, "-c", CONNECT], env=environment, capture_output=True, text=True)
    assert ended.returncode == 1
    assert [line[:37] for line in ended.stderr.splitlines()] == ["error: Ray must start on this machine"]


def test_the_address_of_a_cluster_that_was_killed_is_not_waited_for(free_port: int) -> None:
    environment = os.environ | {"PYTHONPATH": "platform"}
    environment.pop("RAY_ADDRESS", None)
    script = (
        "from canopy.runtime.cluster import connect, started_here; connect(); "
        "print('started here:', started_here())"
    )
    # Not below pytest's folder: paths of sockets must stay short.
    with tempfile.TemporaryDirectory(prefix="cray", ignore_cleanup_errors=True) as folder:
        record = Path(folder, "ray", "ray_current_cluster")
        record.parent.mkdir()
        record.write_text(f"127.0.0.1:{free_port}")
        environment["RAY_TMPDIR"] = folder
        command = [sys.executable, "-c", script]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90)
    assert (ended.returncode, ended.stdout) == (0, "started here: True\n"), ended.stderr
    assert f"at 127.0.0.1:{free_port}, does not answer; a new Ray starts." in ended.stderr


@pytest.mark.usefixtures("ray_here")
def test_which_address_is_joined(free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert address_to_join("") is None  # nothing was ever started: Ray starts here by itself
    record = tmp_path / "ray" / "ray_current_cluster"
    record.parent.mkdir()
    record.write_text(ray.get_runtime_context().gcs_address)
    assert address_to_join("") is None  # it runs: Ray joins it by itself
    record.write_text(f"127.0.0.1:{free_port}")
    assert address_to_join("") == "local"
    assert address_to_join("10.0.0.1:6379") is None
    with pytest.raises(
        ConfigError, match=rf"RAY_ADDRESS must .*auto \(127.0.0.1:{free_port}.*does not answer"
    ):
        address_to_join("auto")
