"""A job on a remote cluster through Ray's Jobs API: the cluster is checked, the log followed to its end."""

from __future__ import annotations

import asyncio
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from canopy.errors import SIGTERM_STATUS, ClusterError, ConfigError
from canopy.runtime.cluster import ADDRESS_VARIABLE, PROBE_TIMEOUT_S

API_ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
"""Ray's own name for the address of the Jobs API, which goes before ``RAY_ADDRESS``."""
RECONNECT_S = 60.0
"""Seconds in which a lost connection to the cluster must come back while a log is followed."""
PAUSE_S = 1.0
"""Seconds between two attempts to reach a log."""
REFUSES = (401, 403)
ResultT = TypeVar("ResultT")


def jobs_address() -> str:
    """The address of the cluster's Jobs API: its dashboard.

    Raises:
        ConfigError: when none is set, or it is no ``http`` address.
    """
    variable = API_ADDRESS_VARIABLE if os.environ.get(API_ADDRESS_VARIABLE) else ADDRESS_VARIABLE
    address = os.environ.get(variable, "")
    remedy = "Open the tunnel (ray dashboard cluster.yaml), then: export RAY_ADDRESS=http://localhost:8265"
    need = "must be the http address of the cluster's dashboard"
    if not address.startswith(("http://", "https://")):
        raise ConfigError(variable, need, address or None, remedy)
    if "@" in address.partition("://")[2]:
        raise ConfigError(variable, need, "one with a user name or a password", "Write http://HOST:PORT.")
    return address.rstrip("/")


def check_cluster(address: str) -> None:
    """Refuse an address at which no Jobs API answers within seconds; Ray's client would wait without limit.

    Args:
        address: address of the dashboard.

    Raises:
        ConfigError: when nothing answers there, or something else.
    """
    need = "must be the http address of the cluster's dashboard"
    remedy = "Start the cluster, open the tunnel (ray dashboard cluster.yaml), or correct the address."
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=PROBE_TIMEOUT_S) as answer:
            known = b'"ray_version"' in answer.read(10_000)
    except urllib.error.HTTPError as error:
        known = error.code in REFUSES  # it answers, to those who have the token
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = str(getattr(error, "reason", error))
        raise ConfigError(ADDRESS_VARIABLE, need, f"{address} ({reason})", remedy) from None
    if not known:
        raise ConfigError(ADDRESS_VARIABLE, need, f"{address} (the service there is not Ray's)", remedy)


def open_client(address: str) -> Any:
    """Ray's client of the Jobs API, after the token and the versions are checked.

    Args:
        address: address of the dashboard.

    Raises:
        ConfigError: when no Jobs API answers, the token is missing or wrong, or the versions of Ray differ.
        ClusterError: when the cluster fails to answer Ray's client.
    """
    check_cluster(address)
    import ray
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    from canopy.runtime.ray_internals.jobs import cluster_version

    for handler in logging.getLogger("ray").handlers:  # notes about the upload
        handler.setLevel(logging.ERROR)
    try:
        client = JobSubmissionClient(address)
    except AuthenticationError:
        need = "must be the one of the cluster"
        got = "none" if not _has_token() else "another one, or one that is not sent"
        remedy = (
            "Set RAY_AUTH_MODE=token, and put the cluster's token into ~/.ray/auth_token or into "
            "RAY_AUTH_TOKEN."
        )
        raise ConfigError("The token", need, got, remedy) from None
    except Exception as error:  # Ray and requests raise their own
        raise ClusterError(f"The cluster at {address}", "must answer", error, "Look at its logs.") from None
    theirs = cluster_version(client)
    if theirs != ray.__version__:
        need = "must be the same here and on the cluster"
        got = f"{ray.__version__} here, {theirs} at {address}"
        raise ConfigError("Ray's version", need, got, "Install requirements.lock in both places.")
    return client


def _has_token() -> bool:
    """Whether a token is set where Ray's client looks for one."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")  # noqa: PTH111
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or os.path.exists(path)  # noqa: PTH110


def next_attempt(client: Any, name: str, entrypoint: str) -> tuple[str, bool]:
    """The id under which a job called ``name`` goes on: Ray takes an id only once.

    The attempts of a job are NAME, NAME-2, NAME-3, …

    Args:
        client: client of the Jobs API.
        name: id that the user gave.
        entrypoint: command of the job.

    Returns:
        The id, and whether that attempt exists and has not ended.

    Raises:
        ConfigError: when another command runs under the name.
        ClusterError: when the cluster fails.
    """
    attempts: dict[int, Any] = {}
    for job in asked(client.list_jobs):
        stem, _, number = (job.submission_id or "").rpartition("-")
        if job.submission_id == name:
            attempts[1] = job
        elif stem == name and number.isdigit() and int(number) > 1:
            attempts[int(number)] = job
    for job in attempts.values():
        if job.status.is_terminal():
            continue
        if job.entrypoint != entrypoint:
            remedy = f"Give another id, or stop it first: ray job stop {job.submission_id}"
            need = "must not be the id of a job that runs with other options"
            raise ConfigError("--submission-id", need, name, remedy)
        return job.submission_id, True
    last = max(attempts, default=0)
    return (f"{name}-{last + 1}" if last else name), False


def submit(client: Any, entrypoint: str, runtime_env: Mapping[str, Any], job: str | None) -> str:
    """Upload the code and start the job on the head, which gives it no CPU of its own: drivers only wait.

    Args:
        client: client of the Jobs API.
        entrypoint: command to run.
        runtime_env: the runtime environment.
        job: id that no job has; None lets Ray make one.

    Raises:
        ClusterError: when the cluster refuses.
    """
    return str(
        asked(
            lambda: client.submit_job(
                entrypoint=entrypoint,
                runtime_env=dict(runtime_env),
                submission_id=job,
                entrypoint_num_cpus=0,
                entrypoint_num_gpus=0,
            )
        )
    )


def asked(request: Callable[[], ResultT]) -> ResultT:
    """The result of a request to the Jobs API.

    Raises:
        ClusterError: when it fails.
    """
    try:
        return request()
    except Exception as error:  # Ray, requests and aiohttp raise their own
        lines = str(error).strip().splitlines()
        first = (lines[-1] if lines else "") or type(error).__name__
        raise ClusterError("The cluster's Jobs API", "must answer", first, "Look at its logs.") from error


class LogFollower:
    """Follows the log of a job until the job ends, also over short losses of the connection.

    Args:
        client: client of the Jobs API.
        job: id of the job.
        write: takes pieces of the log.
    """

    def __init__(self, client: Any, job: str, write: Callable[[str], object]) -> None:
        self._client, self._job, self._write = client, job, write
        self._written = 0

    def follow(self) -> int:
        """Write the log until the job ends; returns the exit status for it, see :func:`exit_status`.

        Raises:
            ClusterError: when the cluster does not answer for ``RECONNECT_S`` seconds, or no longer knows the
                job.
        """
        lost: float | None = None
        while True:
            before = self._written
            try:
                asyncio.run(self._tail())
                info = self._client.get_job_info(self._job)
                if info.status.is_terminal():
                    return exit_status(info)
                lost = None
            except Exception as error:  # Ray, requests and aiohttp raise their own
                now = time.monotonic()
                lost = now if lost is None or self._written > before else lost
                if now - lost > RECONNECT_S:
                    remedy = "The job may still run; the same command with --submission-id follows it."
                    raise ClusterError(f"Job {self._job}", "must be reachable", error, remedy) from None
            time.sleep(PAUSE_S)

    async def _tail(self) -> None:
        """Write the log from where the last connection ended until the job ends or the connection does."""
        seen = 0
        async for piece in self._client.tail_job_logs(self._job):
            new = piece[max(0, self._written - seen) :]
            seen += len(piece)
            self._written = max(self._written, seen)
            if new:
                self._write(new)


def exit_status(info: Any) -> int:
    """The exit status for a job that has ended.

    It is the one of the job's own process, 128 + signal number where a signal ended it. A job that
    ``ray job stop`` ended has 143; a job whose process never ran, or whose node died, has 1.

    Args:
        info: Ray's ``JobDetails``.
    """
    if info.driver_exit_code is not None:
        code = int(info.driver_exit_code)
        return 128 - code if code < 0 else code
    return {"SUCCEEDED": 0, "STOPPED": SIGTERM_STATUS}.get(str(info.status), 1)
