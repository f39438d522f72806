"""Helpers of the tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from canopy.config import (
    DataConfig,
    EnsembleConfig,
    Experiment,
    GenerateConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ResourcesConfig,
    SweepConfig,
    VariantConfig,
)

REPOSITORY = Path(__file__).resolve().parent.parent


def tiny_experiment(rows: int = 600, variants: int = 3, epochs: int = 2, trials: int = 2) -> Experiment:
    """An experiment of test size: two backbones; CBAM in one variant, two workers in another."""
    scale = ResourcesConfig(workers=1, cpus_per_worker=0.25)
    optim = OptimConfig(epochs=epochs, batch_size=32, lr=4e-3)
    small = VariantConfig(
        name="resnet",
        model=ModelConfig(backbone="test_resnet"),
        loss=LossConfig(name="focal"),
        swept=True,
        optim=optim,
        scale=scale,
    )
    plain = small.model_dump()
    attended = {**plain, "name": "resnet-cbam", "model": {**plain["model"], "cbam": "last"}, "seed": 1}
    other = {
        **plain,
        "name": "efficientnet",
        "model": {**plain["model"], "backbone": "test_efficientnet"},
        "loss": {"name": "bce"},
        "swept": False,
        "scale": {**plain["scale"], "workers": 2},
    }
    members = [small.model_dump(), attended, other][:variants]
    return Experiment(
        preset="tiny",
        data=DataConfig(
            source="generated",
            image_size=32,
            val_fraction=0.25,
            test_fraction=0.25,
            generate=GenerateConfig(rows=rows, size=32, min_rate=0.05),
        ),
        variants=tuple(VariantConfig.model_validate(member) for member in members),
        sweep=SweepConfig(trials=trials, epochs=2, rows=128),
        ensemble=EnsembleConfig(bootstrap=100),
    )


def write_config(config: Experiment, path: Path) -> Path:
    """Write ``config`` as a file for ``--config``; its path."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    return json.loads(path.read_text())


def unpack_planet32(planet32: Path, root: Path, rows: int) -> Path:
    """Unpack the first ``rows`` real chips under ``root`` in Kaggle's layout; ``root``."""
    lines = (planet32 / "train_v2.csv").read_text().splitlines()[: rows + 1]
    root.mkdir(parents=True, exist_ok=True)
    (root / "train_v2.csv").write_text("\n".join(lines) + "\n")
    with zipfile.ZipFile(planet32 / "train-jpg.zip") as archive:
        for line in lines[1:]:
            archive.extract(f"train-jpg/{line.split(',')[0]}.jpg", root)
    return root


def start_job(name: str, *arguments: str, env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start ``jobs/NAME.py`` as a process in a process group of its own; its output goes to ``log``."""
    command = [sys.executable, str(REPOSITORY / "jobs" / f"{name}.py"), *arguments]
    with log.open("wb") as out:
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )


def wait_until(
    what: str, found: Callable[[], Any], job: subprocess.Popen[bytes], log: Path, patience_s: float = 240
) -> None:
    """Wait until ``found()`` is true; fails when the job ends first or after ``patience_s`` seconds."""
    end = time.monotonic() + patience_s
    while not found():
        assert job.poll() is None, f"the job ended before {what}:\n{log.read_text()}"
        assert time.monotonic() < end, f"no {what} in {patience_s} s:\n{log.read_text()}"
        time.sleep(0.1)


def end_job(job: subprocess.Popen[bytes]) -> None:
    """Kill a job of :func:`start_job` with all its processes, if it still runs."""
    if job.poll() is None:
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()


def committed(run: Path) -> bool:
    """Whether Ray Train has a checkpoint in its list, so that a second start finds it."""
    lists = list((run / "train" / "ray").rglob("checkpoint_manager_snapshot.json"))
    return bool(lists) and '"checkpoint_dir_name"' in lists[0].read_text()
