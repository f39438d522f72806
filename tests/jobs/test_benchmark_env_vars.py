"""Every benchmark sets the variables that Ray reads at its import before anything imports Ray."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tests.support import REPOSITORY

import canopy

PACKAGES = sorted(path.parent.name for path in (REPOSITORY / "jobs" / "benchmarks").glob("*/__main__.py"))
CODE = """
import os, runpy, sys

class Recorder:
    def find_spec(self, name, path=None, target=None):
        if name == "ray":
            print("Ray sees", os.environ.get("RAY_ENABLE_UV_RUN_RUNTIME_ENV"))
            sys.stdout.flush()
            os._exit(0)  # importing the rest takes seconds

sys.meta_path.insert(0, Recorder())
sys.argv = ["benchmark", "--help"]
runpy.run_path(PLACE, run_name="__main__")
"""


@pytest.mark.parametrize("package", PACKAGES)
def test_ray_is_imported_after_its_variables_are_set(package: str) -> None:
    """Otherwise Ray under ``uv run`` would start each worker by ``uv run``."""
    place = str(REPOSITORY / "jobs" / "benchmarks" / package)
    without = {name: value for name, value in os.environ.items() if name not in canopy.RAY_DEFAULTS}
    done = subprocess.run(
        [sys.executable, "-c", f"PLACE = {place!r}\n{CODE}"],
        capture_output=True,
        text=True,
        env={**without, "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "platform")))},
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Ray sees" not in done.stdout or done.stdout == "Ray sees 0\n"
