"""Checkpoints in Ray Train's storage: which are kept, which are resumed from, the error when one fails."""

from __future__ import annotations

import errno
import json
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ray.train import ControllerError
from tests.support import REPOSITORY, read_json, tiny_experiment, write_config
from torch import nn

from canopy.config import Experiment, FleetConfig, derive
from canopy.errors import RunDirError, StorageError
from canopy.labels import LabelSet
from canopy.runtime.console import Console
from canopy.stages.context import StageContext
from canopy.stages.prepare import load_catalogue
from canopy.stages.train import training_runs
from canopy.storage.run_dir import RunDir
from canopy.train.checkpoint.ray_checkpoint_list import SNAPSHOT, SNAPSHOT_COPY
from canopy.train.checkpoint.saver import CheckpointSaver, storage_errors
from canopy.train.loop import TrainState, make_train_state
from canopy.train.training_phase import DistributedContext
from canopy.train.training_records import TrainingPosition
from canopy.train.training_run import TrainingRun
from jobs import prepare, train


def experiment(epochs: int, batch_size: int = 32, rows: int = 2000, **fleet: Any) -> Experiment:
    """One variant with dropout, half of the rows to train on."""
    tiny = tiny_experiment(rows=rows, variants=1, trials=0)
    first = tiny.variants[0]
    variant = derive(
        first,
        swept=False,
        model=derive(first.model, dropout=0.2),
        optim=derive(first.optim, epochs=epochs, batch_size=batch_size),
    )
    return derive(tiny, variants=(variant,), fleet=derive(tiny.fleet, **fleet))


def arguments(config: Experiment, run: Path | str, folder: Path) -> list[str]:
    return ["--config", str(write_config(config, folder / "c.yaml")), "--run-dir", str(run)]


def training_run_of(config: Experiment, run: Path) -> TrainingRun:
    context = StageContext(config, RunDir(str(run)), Console())
    return training_runs(context, load_catalogue(context))[0]


def checkpoints(folder: Path) -> dict[str, tuple[int, int]]:
    """Epochs and steps of each checkpoint in ``folder``."""
    found = {}
    for path in folder.glob("checkpoint_*/progress.json"):
        progress = read_json(path)["progress"]
        found[path.parent.name] = (progress["epoch"], progress["step"])
    return found


@pytest.mark.usefixtures("ray_here")
def test_the_newest_and_the_best_are_kept_and_unfinished_ones_are_not_resumed_from(tmp_path: Path) -> None:
    """An earlier start was killed while it wrote: the unfinished checkpoint claims the highest score."""
    config = experiment(5, rows=800, keep_checkpoints=2, checkpoint_steps=8, checkpoint_minutes=None)
    run = tmp_path / "run"
    assert prepare.main(arguments(config, run, tmp_path)) == 0
    training_run = training_run_of(config, run)
    folder = run / "train" / "ray" / f"resnet-fold0-{training_run.fingerprint[:12]}"
    unfinished = folder / "checkpoint_2020-01-01_00-00-00.000000"
    unfinished.mkdir(parents=True)
    (unfinished / "progress.json").write_text(json.dumps({"progress": {"epoch": 4, "best_score": 1.0}}))
    (unfinished / "model.safetensors").write_bytes(b"\x00" * 100)

    assert train.main(arguments(config, run, tmp_path)) == 0
    assert not read_json(run / training_run.directory / "facts.json")["resumed"]
    assert not unfinished.exists()
    history = read_json(run / training_run.directory / "history.json")
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5]
    best = sorted(history, key=lambda record: (record["score"], record["epoch"]))[-2:]
    kept = {(int(record["epoch"]), 0) for record in best} | {(5, 0)}
    assert set(checkpoints(folder).values()) == kept
    assert len([one for one in folder.iterdir() if one.is_dir()]) == len(kept)
    named = {one["checkpoint_dir_name"] for one in read_json(folder / SNAPSHOT)["checkpoint_results"]}
    assert named == set(checkpoints(folder))
    assert read_json(folder / SNAPSHOT_COPY) == read_json(folder / SNAPSHOT)
    state = read_json(run / training_run.directory / "progress.json")
    assert (state["kept"], state["kept_at"]) == (5, "epoch 5")


def test_a_job_has_stopped_before_ray_kills_it() -> None:
    environment = yaml.safe_load((REPOSITORY / "platform" / "deploy" / "runtime_env.yaml").read_text())
    assert FleetConfig().stop_grace_s + 10 <= int(environment["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"])


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The kernel refuses to let files grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def manager(last_checkpoint: str) -> CheckpointSaver:
    training_run = TrainingRun(experiment(1).variants[0], 0, 1, "/nowhere", "f", "c")
    context = DistributedContext(0, 1, torch.device("cpu"))
    return CheckpointSaver(training_run, LabelSet(("a",)), context, "/shared/run", last_checkpoint)


def test_a_checkpoint_that_cannot_be_written_is_one_line_with_training_position_and_reason() -> None:
    train_state = small_train_state(experiment(1).variants[0].optim)
    with pytest.raises(StorageError) as caught, files_up_to(1000):
        manager("epoch 3").save(train_state, TrainingPosition(epoch=3, step=120))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("variant resnet: the checkpoint of epoch 4, step 120 must be writable to /tmp")
    assert re.search(r"Got: .*File too large.*\. Last good: epoch 3\. Free space there", message), message


def test_the_list_of_checkpoints_that_cannot_be_written_is_one_line() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    message = r"must be writable to s3://bucket/run\. Got: No space left on device\. The checkpoints listed"
    for error in (full, ControllerError(full)):
        with pytest.raises(StorageError, match=message), storage_errors("resnet", "s3://bucket/run"):
            raise error
    with pytest.raises(ControllerError), storage_errors("resnet", "s3://bucket/run"):
        raise ControllerError(KeyError("another error"))


def test_an_error_that_a_restart_meets_again_is_bad_input() -> None:
    with pytest.raises(RunDirError, match=r"Got: Permission denied"), storage_errors("resnet", "/shared/run"):
        raise PermissionError(errno.EACCES, "Permission denied")


def small_train_state(config: Any) -> TrainState:
    network = nn.Linear(1000, 1)
    return make_train_state(
        network, nn.MSELoss(), [{"params": list(network.parameters()), "lr": 1e-3}], config, 5
    )
