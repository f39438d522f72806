"""Drivers and raylets killed in every stage: the same command ends with the bytes of an undisturbed run.

The experiment sweeps, and trains one variant with two data-parallel workers. A run directory survives a kill
in each stage, one after the other; the moments within the stages are random, by a seed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.clusters import PATIENCE_S, process_of
from tests.support import committed, end_job, read_json, start_job, tiny_experiment, write_config

from canopy.config import Experiment, derive

pytestmark = pytest.mark.slow

TRAINED_BY_TWO = "efficientnet"
EXACT = (
    "prepare/catalogue.parquet",
    "sweep/best.json",
    "train/*/fold0/weights.safetensors",
    "train/*/fold0/*.parquet",
    "ensemble/ensemble.json",
    "ensemble/scores.json",
    "ensemble/*.csv",
    "ensemble/*.parquet",
    "report/contact_sheet.png",
    "report/attention-*.png",
)
"""Files that hold neither durations nor paths."""
TIMES = {"seconds", "images_per_s", "resumed", "started", "time", "run_dir"}


def experiment() -> Experiment:
    tiny = tiny_experiment(rows=400, epochs=6, trials=2)
    assert next(v for v in tiny.variants if v.name == TRAINED_BY_TWO).scale.workers == 2
    return derive(tiny, fleet=derive(tiny.fleet, checkpoint_steps=4, checkpoint_minutes=None))


def command(run: Path, folder: Path) -> list[str]:
    return ["--config", str(write_config(experiment(), folder / "c.yaml")), "--run-dir", str(run)]


def environment() -> dict[str, str]:
    return {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": "local"}


def finish(run: Path, folder: Path) -> None:
    """Run the pipeline; it must end with status 0."""
    job = start_job("pipeline", *command(run, folder), env=environment(), log=folder / "log")
    try:
        assert job.wait(timeout=PATIENCE_S) == 0, (folder / "log").read_text()
    finally:
        end_job(job)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a pipeline that nobody killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(folder / "run", folder)
    return folder / "run"


def without_times(value: Any) -> Any:
    """A JSON value without the fields that differ between equal runs."""
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def assert_equal(run: Path, undisturbed: Path) -> None:
    """The two run directories hold the same results, to the bit."""
    names = sorted({str(path.relative_to(undisturbed)) for name in EXACT for path in undisturbed.glob(name)})
    assert len(names) > 15
    assert [name for name in names if (run / name).read_bytes() != (undisturbed / name).read_bytes()] == []
    ours, theirs = (without_times(read_json(one / "summary.json")) for one in (run, undisturbed))
    assert ours == theirs


def trains_together(run: Path) -> bool:
    """Whether the data-parallel variant has trained at least one step."""
    try:
        progress = read_json(run / "train" / TRAINED_BY_TWO / "fold0" / "progress.json")
    except (OSError, ValueError):
        return False
    return bool(progress.get("ranks") == 2 and progress.get("state") == "training")


Moment = tuple[str, Callable[[Path], bool], float]
MOMENTS: tuple[Moment, ...] = (
    ("prepare", lambda run: (run / "data").exists(), 3.0),
    ("sweep", lambda run: (run / "sweep").exists(), 6.0),
    ("training by two", trains_together, 3.0),
    ("training with checkpoints", committed, 4.0),
    ("writing weights", lambda run: bool(list(run.glob("train/*/fold0/weights.safetensors"))), 0.3),
    ("ensemble", lambda run: len(list(run.glob("train/*/fold0/done.json"))) == 3, 2.0),
    ("report", lambda run: (run / "ensemble" / "done.json").exists(), 1.0),
    ("drawing the page", lambda run: (run / "report").exists(), 0.5),
    ("writing the summary", lambda run: (run / "report" / "index.html").exists(), 0.05),
)
"""Name, condition from which on it may come, and the longest wait after it in seconds."""


def killed(moment: Moment, seconds: float, run: Path, folder: Path, kill: Callable[[int], None]) -> bool:
    """Start the pipeline and kill it at a moment; False when it had ended before."""
    name, reached, _ = moment
    job = start_job("pipeline", *command(run, folder), env=environment(), log=folder / "log")
    end = time.monotonic() + PATIENCE_S
    try:
        while not reached(run) and job.poll() is None:
            assert time.monotonic() < end, f"{name} is not reached:\n{(folder / 'log').read_text()}"
            time.sleep(0.02)
        time.sleep(seconds)
        if job.poll() is not None:
            assert job.returncode == 0, f"before {name}:\n{(folder / 'log').read_text()}"
            return False
        kill(job.pid)
        job.wait(timeout=PATIENCE_S)
    finally:
        end_job(job)
    return job.returncode != 0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_driver_killed_in_every_stage(seed: int, undisturbed: Path, tmp_path: Path) -> None:
    rng, run = random.Random(seed), tmp_path / "run"
    kills = {}
    for moment in MOMENTS:
        wait = rng.uniform(0, moment[2])
        done = killed(moment, wait, run, tmp_path, lambda pid: os.kill(pid, signal.SIGKILL))
        kills[moment[0]] = f"{wait:.2f} s" if done else "too late"
    print(kills)
    assert sum(value != "too late" for value in kills.values()) >= 6, kills
    finish(run, tmp_path)
    assert_equal(run, undisturbed)


def kill_raylet(driver: int) -> None:
    """Kill the raylet that a driver started."""
    children = process_of(driver).children(recursive=True)
    (raylet,) = [one for one in children if one.name() == "raylet"]
    raylet.kill()


def test_a_raylet_killed_under_a_driver(undisturbed: Path, tmp_path: Path) -> None:
    """The driver ends by itself: everything that it started is gone."""
    run = tmp_path / "run"
    for moment in MOMENTS[:4]:
        assert killed(moment, 0.5, run, tmp_path, kill_raylet), moment[0]
        print((tmp_path / "log").read_text().splitlines()[-1])
    finish(run, tmp_path)
    assert_equal(run, undisturbed)
