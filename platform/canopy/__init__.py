"""Canopy: from a pile of multi-label aerial images to one tuned ensemble, on Ray."""

import os

__version__ = "0.1.0"

RAY_DEFAULTS = {
    # `uv run` would make Ray build the environment anew for every worker; ours is already the right one.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Ray's own default for a local start, made explicit; a cluster may set its own (docs/cluster.md).
    "RAY_AUTH_MODE": "token",
    # Workers keep the directory that the job started in, so relative paths mean one thing.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Streams, processes and their progress bars belong into Ray's log files and dashboard.
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TQDM": "0",
    # Tune's newer console output prints tables even at verbose=0.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Ray ends idle workers beyond the number of CPUs after a second: with a few streams on few cores every
    # data task would then pay for a process start and torch's import.
    "RAY_num_workers_soft_limit": "16",
    # One process less for each training: nobody preempts a laptop. runtime_env.yaml turns it on.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # A start of many small workers on few cores is what we do on purpose, not news for the console.
    "RAY_worker_maximum_startup_concurrency": "64",
}
"""Environment variables that Ray reads when it is imported or started, so they are set before anything of
Canopy can import it; what the user or the cluster has set stays."""

for _name, _value in RAY_DEFAULTS.items():
    os.environ.setdefault(_name, _value)
