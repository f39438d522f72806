"""Joining Ray: the cluster of a submitted job, or one of our own on this machine."""

from __future__ import annotations

import logging
import os
import sys

LOCAL_DEFAULTS = {
    # `uv run` would make Ray build the environment anew for every worker; ours is already the right one.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Ray's own default for a local start, made explicit; a cluster may set its own (docs/cluster.md).
    "RAY_AUTH_MODE": "token",
    # Workers keep the directory that the job started in, so relative paths mean one thing.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Streams, processes and their progress bars belong into Ray's log files and dashboard.
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    "RAY_TQDM": "0",
    # Tune's newer console output prints tables even at verbose=0.
    "RAY_AIR_NEW_OUTPUT": "0",
    # A start of many small workers on few cores is what we do on purpose, not news for the console.
    "RAY_worker_maximum_startup_concurrency": "64",
}


def connect() -> None:
    """Join the cluster that ``RAY_ADDRESS`` names (a submitted job), else start Ray on this machine.

    Ray's own logs stay in its log directory and its dashboard; the console is the job's.
    """
    for name, value in LOCAL_DEFAULTS.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return
    # Nothing of the runtime environment here: under the Jobs API repeating a field of it is an error.
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    quiet()


def quiet() -> None:
    """Keep Ray's libraries from narrating on this process's console; their log files stay complete."""
    import ray.data
    import ray.train
    import ray.tune  # noqa: F401 (each sets up its logger when it is imported)

    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        for handler in logging.getLogger(name).handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)


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


def is_terminal() -> bool:
    """Whether a person watches."""
    return sys.stdout.isatty()
