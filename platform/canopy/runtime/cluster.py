"""Connects to Ray: to the cluster of a submitted job, or to a new local Ray."""

from __future__ import annotations

import logging
import os
import socket

from canopy.errors import CanopyError, ClusterError, ConfigError, printable

logger = logging.getLogger(__name__)
ADDRESS_VARIABLE = "RAY_ADDRESS"
PROBE_TIMEOUT_S = 5.0
"""Seconds in which the address in ``RAY_ADDRESS`` must answer."""
NO_ADDRESS = ("", "auto", "local")
"""Values of ``RAY_ADDRESS`` that are not addresses."""
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""First bytes of an HTTP/2 client with an empty SETTINGS frame (RFC 9113, section 3.4): Ray speaks gRPC."""
SETTINGS_FRAME = 4


def connect() -> None:
    """Join the cluster in ``RAY_ADDRESS``, which a submitted job has, or else start Ray on this machine.

    As with ``ray.init``, a cluster that ``ray start`` started on this machine is joined without an address,
    but only if it answers. Ray's own logs stay in its log directory and its dashboard.

    Raises:
        ConfigError: when nothing answers at ``RAY_ADDRESS``, or at the address behind ``auto``.
        ClusterError: when Ray does not start, or the cluster refuses.
    """
    import ray

    if ray.is_initialized():
        return
    check_environment()
    address = os.environ.get(ADDRESS_VARIABLE, "")
    joined = address_to_join(address)
    try:
        # No runtime environment here: under the Jobs API a repeated field of it is an error.
        ray.init(joined, log_to_driver=False, logging_level=logging.ERROR)
    except CanopyError:
        raise
    except Exception as error:  # Ray raises RuntimeError, ConnectionError, TimeoutError, Exception itself, …
        ray.shutdown()
        raise start_error(address, error) from error
    quiet()
    if not started_here():
        from canopy.runtime.ray_internals.data import start_service_actors_here

        start_service_actors_here()


def check_environment() -> None:
    """Refuse ``RAY_ADDRESS`` where no Ray answers, in seconds and without importing Ray.

    Raises:
        ConfigError: as :func:`check_address`.
    """
    check_address(os.environ.get(ADDRESS_VARIABLE, ""))


def address_to_join(address: str) -> str | None:
    """The argument of ``ray.init``: None leaves the choice to Ray, ``local`` starts a new Ray.

    A cluster that was killed leaves its address in Ray's temporary directory. Ray would wait many minutes
    for it.

    Args:
        address: value of ``RAY_ADDRESS``; empty where it is not set.

    Raises:
        ConfigError: when the cluster behind ``auto`` does not answer.
    """
    from canopy.runtime.ray_internals.core import last_started_address

    last = last_started_address() if address in ("", "auto") else None
    if last is None or _ray_answers(last):
        return None
    if address == "auto":
        remedy = "Start Ray on this machine (ray start --head), or set it to the HOST:PORT of a cluster."
        got = f"auto ({last}, the cluster that was started last, does not answer)"
        raise ConfigError(ADDRESS_VARIABLE, "must find a running Ray cluster", got, remedy)
    logger.warning(
        "The Ray cluster that was started last on this machine, at %s, does not answer; a new Ray starts.",
        printable(last),
    )
    return "local"


def _ray_answers(address: str) -> bool:
    """Whether a Ray answers at ``HOST:PORT``."""
    try:
        check_address(address)
    except ConfigError:
        return False
    return True


def start_error(address: str, error: Exception) -> ClusterError | ConfigError:
    """The error for an exception of ``ray.init``.

    Args:
        address: value of ``RAY_ADDRESS``; empty where it is not set.
        error: Ray's exception; its first line is shown.
    """
    lines = (line.strip() for line in str(error).splitlines())
    first = printable(next((line for line in lines if line), type(error).__name__))
    if address == "auto":
        remedy = f"Start Ray on this machine (ray start --head), or unset {ADDRESS_VARIABLE}."
        return ConfigError(ADDRESS_VARIABLE, "must find a running Ray cluster", f"auto ({first})", remedy)
    if address not in NO_ADDRESS:
        remedy = (
            f"Check that {ADDRESS_VARIABLE} is the address of a Ray cluster, look at the cluster's logs, and "
            "compare its versions of Ray and Python with this machine's."
        )
        return ClusterError(f"The Ray cluster at {address}", "must accept this job", first, remedy)
    directory = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # as Ray chooses it
    remedy = (
        f"Look at Ray's logs in {directory.rstrip('/')}/ray; often memory, CPUs or disk space are short. "
        "Then start again."
    )
    return ClusterError("Ray", "must start on this machine", first, remedy)


def check_address(address: str) -> None:
    """Refuse an address at which no Ray answers: ``ray.init`` would wait many minutes for it.

    Args:
        address: value of ``RAY_ADDRESS``: ``HOST:PORT`` or ``ray://HOST:PORT``.

    Raises:
        ConfigError: when the address is malformed, or nothing that speaks Ray's protocol answers in time.
    """
    if address in NO_ADDRESS:
        return
    need = "must be the address of a running Ray cluster"
    remedy = f"Start the cluster or correct the address; unset {ADDRESS_VARIABLE} to start Ray here."
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if "@" in host:
        got = f"one with a user name or a password, before @{host.rpartition('@')[2]}:{port}"
        raise ConfigError(ADDRESS_VARIABLE, need, got, "Write HOST:PORT only.")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ConfigError(ADDRESS_VARIABLE, need, f"{address} (not HOST:PORT)", remedy)
    try:
        answers = speaks_http2(host.strip("[]"), int(port))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(ADDRESS_VARIABLE, need, f"{address} ({reason})", remedy) from None
    if not answers:
        raise ConfigError(ADDRESS_VARIABLE, need, f"{address} (the service there is not Ray)", remedy)


def speaks_http2(host: str, port: int) -> bool:
    """Whether the service at a port answers as an HTTP/2 server; not tested where Ray uses TLS.

    Raises:
        OSError: when the connection fails or the answer takes longer than ``PROBE_TIMEOUT_S``.
    """
    with socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S) as connection:
        if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
            return True
        connection.sendall(HTTP2_PREFACE)
        header = b""
        while len(header) < 9 and (received := connection.recv(9 - len(header))):
            header += received
    return len(header) == 9 and header[3] == SETTINGS_FRAME


def started_here() -> bool:
    """Whether this process started the Ray that it uses: one machine, one file system."""
    from canopy.runtime.ray_internals.core import runs_on_own_head

    return runs_on_own_head()


def quiet() -> None:
    """Limit the console output of Ray's libraries in this process to errors; log files stay complete."""
    import ray.data
    import ray.train
    import ray.tune  # noqa: F401 (each import sets up a logger)

    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        for handler in logging.getLogger(name).handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.ERROR)
    # The sweep reports a failed trial in one line; Tune would add its traceback.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def dashboard_url() -> str | None:
    """URL of the dashboard, or None when it does not run."""
    from canopy.runtime.ray_internals.core import dashboard_address

    address = dashboard_address()
    return f"http://{address}" if address and not address.startswith("http") else address


def is_submitted() -> bool:
    """Whether this process is the driver of a job that was submitted through the Jobs API."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or "RAY_JOB_SUBMISSION_ID" in os.environ


def require_shared_path(option: str, path: str | None) -> None:
    """Refuse a relative path in a submitted job, whose working directory is a temporary copy of the code.

    Args:
        option: name of the option that gave the path.
        path: a path or URI; None where none was given.

    Raises:
        ConfigError: when the path is missing or relative, in a submitted job.
    """
    if is_submitted():
        refuse_relative_path(option, path)


def refuse_relative_path(option: str, path: str | None) -> None:
    """Refuse a path that would lie in the temporary copy of the code of a submitted job.

    Args:
        option: name of the option that gave the path.
        path: a path or URI; None where none was given.

    Raises:
        ConfigError: when the path is missing or relative.
    """
    if not (path and ("://" in path or path.startswith("/"))):
        need = "must be absolute or a URI in a submitted job, which runs in a temporary copy"
        raise ConfigError(option, need, path, f"Give {option} /shared/… or s3://…")
