"""Rules of the house that no other tool holds."""

from __future__ import annotations

import importlib
import subprocess
import sys

from tests.support import REPOSITORY


def test_the_standard_module_platform_wins() -> None:
    assert not (REPOSITORY / "platform" / "__init__.py").exists(), "it would shadow the standard module"
    command = "import platform; platform.node(); import canopy; print(canopy.__name__)"
    done = subprocess.run([sys.executable, "-c", command], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "canopy\n"), done.stderr


def test_every_job_says_what_it_does() -> None:
    for job in (REPOSITORY / "jobs").glob("*.py"):
        module = importlib.import_module(f"jobs.{job.stem}")
        assert module.__doc__, job
        assert callable(module.main), job


def test_jobs_are_thin() -> None:
    for job in (REPOSITORY / "jobs").glob("*.py"):
        assert len(job.read_text().splitlines()) <= 60, job


def test_the_ensemble_needs_neither_ray_nor_torch() -> None:
    code = (
        "import sys; import canopy.ensemble.model; "
        "print([m for m in ('ray', 'torch', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ray" not in done.stdout
    assert "torch" not in done.stdout
