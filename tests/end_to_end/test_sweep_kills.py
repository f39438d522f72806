"""Sweeps killed in the middle: the same command goes on, to the epoch, and finds the same."""

from __future__ import annotations

import os
import time
from pathlib import Path
from threading import Thread
from typing import Any

import psutil  # type: ignore[import-untyped]  # a dependency of Ray
import pytest
from tests.support import end_job, read_json, start_job, tiny_experiment, wait_until, write_config

from canopy.config import Experiment, SweepConfig, derive
from canopy.sweep.checkpoints import TrialCheckpoint
from jobs import prepare, sweep

pytestmark = pytest.mark.slow
PATIENCE_S = 400
EPOCHS = 4


def swept(**settings: Any) -> Experiment:
    """One variant swept over learning rate and loss, without early stopping: the trials are then the same."""
    plain = tiny_experiment(rows=600, variants=1, epochs=3)
    space = {"optim.lr": {"low": 1e-3, "high": 1e-2, "log": True}, "loss.name": ["bce", "focal"]}
    given = {
        **{"space": space, "sampler": "random", "scheduler": "none", "trials": 4, "epochs": EPOCHS},
        **{"finalists": 1, "final_seeds": 2, **settings},
    }
    return derive(plain, sweep=SweepConfig.model_validate(given))


def arguments_of(config: Experiment, folder: Path) -> list[str]:
    folder.mkdir(exist_ok=True)
    return ["--config", str(write_config(config, folder / "c.yaml")), "--run-dir", str(folder / "run")]


def scores(run: Path) -> list[tuple[Any, list[float]]]:
    return [(trial["values"], trial["curve"]) for trial in read_json(run / "sweep" / "trials.json")]


def test_a_sweep_killed_three_times_goes_on_to_the_epoch_and_finds_the_same(tmp_path: Path) -> None:
    arguments, run, log = (
        arguments_of(swept(), tmp_path / "killed"),
        tmp_path / "killed" / "run",
        tmp_path / "log",
    )
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    assert start_job("prepare", *arguments, env=env, log=log).wait(PATIENCE_S) == 0, log.read_text()
    points, ended = run / "sweep" / "points", run / "sweep" / "trials"

    def checkpoints() -> set[tuple[str, int]]:
        """Checkpoints by name and time of writing: an epoch of a running trial each."""
        return {(path.name, path.stat().st_mtime_ns) for path in points.glob("*.tar") if path.exists()}

    for _ in range(3):
        before = checkpoints()
        job = start_job("sweep", *arguments, env=env, log=log)
        try:
            wait_until("an epoch", lambda: checkpoints() - before, job, log, PATIENCE_S)  # noqa: B023
        finally:
            end_job(job)
        assert not (run / "sweep" / "done.json").exists()
    done = EPOCHS * len(list(ended.glob("*.json")))
    for path in points.glob("*.tar"):
        if not (ended / f"{path.stem}.json").exists():
            position = TrialCheckpoint(str(path)).unpack(tmp_path)
            assert position is not None
            done += position.epoch
    last = start_job("sweep", *arguments, env=env, log=log)
    assert last.wait(PATIENCE_S) == 0, log.read_text()
    lines = log.read_text().splitlines()
    trained = sum(f": epoch {n}/{EPOCHS}" in line for line in lines for n in range(1, EPOCHS + 1))
    assert trained == 4 * EPOCHS - done, "the last start trains what no start before has trained"

    whole = arguments_of(swept(), tmp_path / "whole")
    for name in ("prepare", "sweep"):
        assert start_job(name, *whole, env=env, log=log).wait(PATIENCE_S) == 0, log.read_text()
    assert scores(run) == scores(tmp_path / "whole" / "run")
    killed, undisturbed = (read_json(tmp_path / name / "run/sweep/best.json") for name in ("killed", "whole"))
    assert killed == undisturbed


@pytest.mark.usefixtures("ray_here")
def test_a_trial_whose_process_dies_goes_on_from_its_last_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = swept(trials=1, epochs=30, finalists=0)
    arguments, run = arguments_of(config, tmp_path), tmp_path / "run"
    assert prepare.main(arguments) == 0
    status: list[int] = []
    job = Thread(target=lambda: status.append(sweep.main(arguments)))
    job.start()
    end = time.monotonic() + PATIENCE_S
    while not list((run / "sweep" / "points").glob("*.tar")):
        assert time.monotonic() < end
        time.sleep(0.1)
    processes = psutil.Process().children(recursive=True)
    (trial_process,) = [one for one in processes if "ImplicitFunc" in " ".join(one.cmdline())]
    trial_process.kill()
    job.join(PATIENCE_S)
    assert status == [0]
    (trial,) = read_json(run / "sweep" / "trials.json")
    assert (trial["epochs"], trial["error"], len(trial["curve"])) == (30, None, 30)
    lines = [line for line in capsys.readouterr().out.splitlines() if ": epoch " in line]
    assert len(lines) == 30, "no epoch was trained twice"
