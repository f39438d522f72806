"""A stream whose tasks need more memory than there is fails in finite time, with Ray's memory report."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from canopy import RAY_DEFAULTS

SCRIPT = """
import tempfile, time
import numpy as np, ray, ray.data

def allocate(batch):
    array = np.ones((3 << 30) // 8)
    time.sleep(20)
    return batch

ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20,
         _temp_dir=tempfile.mkdtemp(prefix="cr"))
try:
    for _ in ray.data.range(4).map_batches(allocate, batch_size=None).iter_batches():
        pass
except ray.exceptions.OutOfMemoryError as error:
    print("out of memory:", str(error).splitlines()[0])
"""


@pytest.mark.slow
def test_a_stream_out_of_memory_ends_with_an_error() -> None:
    with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in file}
    used = 1 - sizes["MemAvailable"] / sizes["MemTotal"]
    env = os.environ | {
        "RAY_memory_usage_threshold": f"{used + 0.06:.3f}",
        "RAY_memory_monitor_refresh_ms": "200",
        "RAY_task_oom_retries": "2",
        "RAY_AUTH_MODE": "disabled",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, timeout=240
    )
    assert "out of memory: " in done.stdout, done.stderr[-2000:]


def test_retries_after_running_out_of_memory_are_bounded() -> None:
    assert 0 < int(RAY_DEFAULTS["RAY_task_oom_retries"]) <= 20
