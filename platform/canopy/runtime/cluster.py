"""Joining Ray: the cluster of a submitted job, or one of our own on this machine."""

from __future__ import annotations

import logging
import os


def connect() -> None:
    """Join the cluster that ``RAY_ADDRESS`` names (a submitted job), else start Ray on this machine.

    Ray's own logs stay in its log directory and its dashboard; the console is the job's.
    """
    import ray

    if ray.is_initialized():
        return
    # Nothing of the runtime environment here: under the Jobs API repeating a field of it is an error.
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    quiet()


def started_here() -> bool:
    """Whether this process started the Ray that it uses: then there is one machine, with one file system."""
    import ray

    node = getattr(ray._private.worker, "_global_node", None)
    return node is not None and bool(node.is_head())


def quiet() -> None:
    """Keep Ray's libraries from narrating on this process's console; their log files stay complete."""
    import ray.data
    import ray.train
    import ray.tune  # noqa: F401 (each sets up its logger when it is imported)

    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        for handler in logging.getLogger(name).handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.ERROR)
    # A trial that fails is told in one line by the sweep, and not by Tune with its traceback as well.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def dashboard_url() -> str | None:
    """Where the dashboard listens, if it runs."""
    import ray

    context = ray.get_runtime_context()
    assert context is not None
    url = getattr(ray._private.worker.global_worker.node, "webui_url", None)
    return f"http://{url}" if url and not url.startswith("http") else url


def is_submitted() -> bool:
    """Whether this process is the driver of a job submitted through the Jobs API."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or "RAY_JOB_SUBMISSION_ID" in os.environ
