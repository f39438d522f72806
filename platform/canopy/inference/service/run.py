"""Starts the service on the cluster, or on this machine, and keeps it until a signal comes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping

from canopy.errors import ClusterError, ConfigError
from canopy.inference.service.settings import TOKEN_VARIABLE, ServiceOptions
from canopy.runtime.cluster import connect, started_here
from canopy.runtime.console import Console
from canopy.runtime.ray_errors import last_line
from canopy.train.fleet.shutdown import end_on_sigterm

NAME = "serve"
"""Name of the command on the console."""
APP = "canopy"
"""Name of the application: a second start on the same cluster replaces its version."""
DEPLOY_TIMEOUT_S = 600.0


def require_serve() -> None:
    """Refuse to go on without the packages that the service needs.

    Raises:
        ConfigError: naming the first package that is missing.
    """
    import importlib.util

    missing = [name for name in ("fastapi", "uvicorn", "multipart") if importlib.util.find_spec(name) is None]
    if missing:
        need, remedy = "needs packages that are not installed", "pip install 'canopy-eo[serve]'."
        raise ConfigError("canopy serve", need, f"no {', '.join(missing)}", remedy)


def require_free_port(host: str, port: int) -> None:
    """Refuse a port that is taken.

    Raises:
        ConfigError: when the address cannot be bound.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError("--port", "must be free", f"{host}:{port} ({reason})", "Choose another.") from None


def serve_models(
    models: Mapping[str, str], options: ServiceOptions, host: str, port: int, console: Console
) -> None:
    """Serve models until Ctrl-C or SIGTERM. On a cluster of its own, the service ends with this process.

    Args:
        models: name -> directory or URI of a finished run.
        options: limits, replicas, authentication.
        host: address to listen on.
        port: port to listen on.
        console: receives progress.

    Raises:
        ConfigError: when an option is wrong, there is no token, or labels differ.
        RunDirError: when a run is not finished.
        ClusterError: when the service does not start.
    """
    require_serve()
    from canopy.inference.service.application import application

    app = application(models, options)
    if not in_cluster():
        require_free_port(host, port)
    connect()
    end_on_sigterm()
    start(app, options, host, port)
    console.say(NAME, f"http://{host}:{port} serves {', '.join(models)}")
    if options.auth:
        source = options.token_file or TOKEN_VARIABLE
        console.say(NAME, f"requests need the token of {source}")
    try:
        threading.Event().wait()
    finally:
        if started_here():
            from ray import serve

            serve.shutdown()  # type: ignore[no-untyped-call]


def start(app: object, options: ServiceOptions, host: str, port: int) -> None:
    """Deploy the application, replacing an earlier version of it, and wait until it answers.

    Raises:
        ClusterError: when it does not start.
    """
    from ray import serve
    from ray.serve.config import HTTPOptions

    http = HTTPOptions(host=host, port=port, request_timeout_s=options.timeout_s + 30)
    try:
        serve.start(proxy_location="HeadOnly", http_options=http)
        serve.run(app, name=APP, route_prefix="/")  # type: ignore[arg-type]
    except Exception as error:  # Ray Serve raises RuntimeError and errors of Ray
        raise ClusterError("The service", "must start", *failure_of(error)) from error


def failure_of(error: Exception) -> tuple[str, str]:
    """Why the service did not start, and the remedy: what its replicas raised, where Ray Serve knows it."""
    from ray import serve

    application = None
    with contextlib.suppress(Exception):  # Ray Serve itself may be what fails; the first error counts
        application = serve.status().applications.get(APP)
    for name, deployment in application.deployments.items() if application else ():
        if "Error" in deployment.message:
            reason = f"{name}: {last_line(deployment.message)}"
            return reason, "Correct that; a version that served before goes on."
    remedy = "Look at the log of the deployment in Ray's dashboard or in /tmp/ray/session_latest/logs/serve."
    return last_line(str(error)), remedy


def in_cluster() -> bool:
    """Whether this process joins a cluster that exists, where another version may hold the port."""
    import os

    return bool(os.environ.get("RAY_ADDRESS", ""))
