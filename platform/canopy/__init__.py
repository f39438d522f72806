"""Canopy: from labelled aerial images to one tuned multi-label ensemble, on Ray.

The import sets those environment variables of Ray that Canopy relies on, and that are not set yet
(:data:`RAY_DEFAULTS`). ``canopy.load`` opens a finished run; every other name is imported from its package.
Only ``canopy``, ``canopy.config`` and ``canopy.metrics`` re-export names.

The suffix of an array's name gives its axes in order: N rows, K labels, M members of the ensemble, B rows of
a batch (or bootstrap replicates), H, W and C height, width and channels of an image, digits for fixed
lengths. A small n is a part of N.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from canopy.inference.model import Model
    from canopy.inference.networks import Precision

__version__ = "0.1.0"

RAY_DEFAULTS = {
    # Ray's default starts a task for ever again that its memory monitor kills; then a stream never fails.
    "RAY_task_oom_retries": "10",
    # Workers use the environment of the driver; under `uv run` Ray would build another one for each.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Ray's default for a local start, made explicit; a cluster may set its own (docs/cluster.md).
    "RAY_AUTH_MODE": "token",
    # Workers keep the driver's working directory, so that a relative path means the same everywhere.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Progress bars of streams and processes would clutter the console; the dashboard shows progress.
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TQDM": "0",
    # The newer console output of Tune prints tables even at verbose=0.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Ray ends idle workers beyond the number of CPUs after a second. With several streams on few cores, each
    # data task would then start a process and import torch.
    "RAY_num_workers_soft_limit": "16",
    # One process less per training where no node can be preempted. runtime_env.yaml turns it on.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Many small workers start at once on few cores, on purpose: no warning about it.
    "RAY_worker_maximum_startup_concurrency": "64",
}
"""Environment variables that Ray reads when it is imported or started. They are set here, before any module
imports Ray; values set by the user or the cluster are kept."""

for _name, _value in RAY_DEFAULTS.items():
    os.environ.setdefault(_name, _value)


def load(
    run_dir: str,
    *,
    members: Sequence[str] | None = None,
    max_members: int | None = None,
    device: str | torch.device | None = None,
    precision: Precision | None = None,
    compile: bool = False,
) -> Model:
    """The model of a finished run; see :func:`canopy.inference.load.load_model`."""
    from canopy.inference.load import load_model  # torch takes seconds to import

    return load_model(
        run_dir,
        members=members,
        max_members=max_members,
        device=device,
        precision=precision,
        compile=compile,
    )
