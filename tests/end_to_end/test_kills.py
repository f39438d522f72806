"""Jobs and workers killed in the middle: the same command resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.support import committed, end_job, read_json, start_job, tiny_experiment, wait_until, write_config

from canopy.config import derive

PATIENCE_S = 240


def test_a_killed_pipeline_resumes_where_it_stopped(tmp_path: Path) -> None:
    config = tiny_experiment(variants=1, trials=0)
    optim = derive(config.variants[0].optim, epochs=20)
    config = derive(config, variants=(derive(config.variants[0], optim=optim),))
    run, log = tmp_path / "run", tmp_path / "log"
    arguments = ["--config", str(write_config(config, tmp_path / "c.yaml")), "--run-dir", str(run)]
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}

    first = start_job("pipeline", *arguments, env=env, log=log)
    try:
        wait_until("a committed checkpoint", lambda: committed(run), first, log)
    finally:
        end_job(first)
    assert not (run / "summary.json").exists()
    assert not (run / "train" / "resnet" / "fold0" / "done.json").exists()
    prepared = (run / "prepare" / "done.json").stat().st_mtime_ns

    second = start_job("pipeline", *arguments, env=env, log=log)
    assert second.wait(timeout=PATIENCE_S) == 0, log.read_text()
    assert (run / "prepare" / "done.json").stat().st_mtime_ns == prepared
    variant = read_json(run / "summary.json")["variants"]["resnet"]
    assert variant["resumed"], "it began from the start"
    history = read_json(run / "train" / "resnet" / "fold0" / "history.json")
    assert [record["epoch"] for record in history] == list(range(1, 21))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_killed_training_worker_is_replaced(tmp_path: Path) -> None:
    from threading import Thread

    from jobs import pipeline

    config = tiny_experiment(variants=1, trials=0)
    optim = derive(config.variants[0].optim, epochs=20)
    config = derive(config, variants=(derive(config.variants[0], optim=optim),))
    run = tmp_path / "run"
    arguments = ["--config", str(write_config(config, tmp_path / "c.yaml")), "--run-dir", str(run)]
    status: list[int] = []
    job = Thread(target=lambda: status.append(pipeline.main(arguments)))
    job.start()
    end = time.monotonic() + PATIENCE_S
    while not committed(run):
        assert time.monotonic() < end
        time.sleep(0.2)
    workers = subprocess.run(["pgrep", "-f", "ray::RayTrainWorker"], capture_output=True, text=True)
    os.kill(int(workers.stdout.split()[0]), signal.SIGKILL)
    job.join(timeout=PATIENCE_S)
    assert status == [0]
    assert read_json(run / "summary.json")["variants"]["resnet"]["resumed"]
