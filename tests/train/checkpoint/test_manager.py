"""Checkpoints in Ray Train's storage: which are kept, which are gone on from, what is said when one fails."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.support import REPOSITORY, read_json, tiny_experiment, write_config
from torch import nn

from canopy.config import Experiment, FleetConfig, derive
from canopy.errors import StageError
from canopy.labels import LabelSet
from canopy.runtime.console import Console
from canopy.stages.context import StageContext
from canopy.stages.prepare import load_catalogue
from canopy.stages.train import training_runs
from canopy.storage.run_dir import RunDir
from canopy.train.checkpoint.manager import CheckpointManager
from canopy.train.checkpoint.snapshot import (
    SNAPSHOT,
    SNAPSHOT_COPY,
    remove_unlisted_checkpoints,
    restore_snapshot,
)
from canopy.train.loop import TrainState, make_train_state
from canopy.train.progress import Progress
from canopy.train.task import DistributedContext
from canopy.train.training_run import TrainingRun
from jobs import prepare, train


def experiment(epochs: int, batch_size: int = 32, rows: int = 2000, **fleet: Any) -> Experiment:
    """One variant with dropout, half of the rows to train on."""
    tiny = tiny_experiment(rows=rows, variants=1, trials=0)
    first = tiny.variants[0]
    variant = derive(
        first,
        swept_loss=False,
        model=derive(first.model, dropout=0.2),
        optim=derive(first.optim, epochs=epochs, batch_size=batch_size),
    )
    return derive(tiny, variants=(variant,), fleet=derive(tiny.fleet, **fleet))


def arguments(config: Experiment, run: Path | str, folder: Path) -> list[str]:
    return ["--config", str(write_config(config, folder / "c.yaml")), "--run-dir", str(run)]


def unit_of(config: Experiment, run: Path) -> TrainingRun:
    context = StageContext(config, RunDir(str(run)), Console())
    return training_runs(context, load_catalogue(context))[0]


def checkpoints(folder: Path) -> dict[str, tuple[int, int]]:
    """Epochs and steps of each checkpoint that is there."""
    found = {}
    for one in folder.glob("checkpoint_*/progress.json"):
        progress = read_json(one)["progress"]
        found[one.parent.name] = (progress["epoch"], progress["step"])
    return found


# One training through Ray


@pytest.mark.usefixtures("ray_here")
def test_the_newest_and_the_best_are_kept_and_halves_are_not_gone_on_from(tmp_path: Path) -> None:
    """An earlier start was killed while it wrote: its half has a progress file that claims a lot."""
    config = experiment(5, rows=800, keep_checkpoints=2, checkpoint_steps=8, checkpoint_minutes=None)
    run = tmp_path / "run"
    assert prepare.main(arguments(config, run, tmp_path)) == 0
    training_run = unit_of(config, run)
    folder = run / "train" / "ray" / f"resnet-fold0-{training_run.fingerprint[:12]}"
    half = folder / "checkpoint_2020-01-01_00-00-00.000000"
    half.mkdir(parents=True)
    (half / "progress.json").write_text(json.dumps({"progress": {"epoch": 4, "best_score": 1.0}}))
    (half / "model.safetensors").write_bytes(b"\x00" * 100)

    assert train.main(arguments(config, run, tmp_path)) == 0
    assert not read_json(run / training_run.directory / "facts.json")["resumed"]
    assert not half.exists()
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


# Without Ray


def test_a_list_cut_off_is_replaced_by_its_copy(tmp_path: Path) -> None:
    restore_snapshot(str(tmp_path))  # nothing there: nothing done
    (tmp_path / SNAPSHOT).write_text('{"whole": 1}')
    (tmp_path / SNAPSHOT_COPY).write_text('{"before": 1}')
    restore_snapshot(str(tmp_path))
    assert read_json(tmp_path / SNAPSHOT) == {"whole": 1}
    for torn in ("", '{"whole"'):
        (tmp_path / SNAPSHOT).write_text(torn)
        restore_snapshot(str(tmp_path))
        assert read_json(tmp_path / SNAPSHOT) == {"before": 1}
    (tmp_path / SNAPSHOT_COPY).unlink()
    (tmp_path / SNAPSHOT).write_text("")
    restore_snapshot(str(tmp_path))
    assert not (tmp_path / SNAPSHOT).exists()


def test_only_what_the_list_names_stays(tmp_path: Path) -> None:
    from pyarrow import fs

    for name in ("checkpoint_a", "checkpoint_b", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / SNAPSHOT).write_text('{"checkpoint_results": [{"checkpoint_dir_name": "chec')
    remove_unlisted_checkpoints(fs.LocalFileSystem(), str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 4, "a list that cannot be read says nothing"
    (tmp_path / SNAPSHOT).write_text('{"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_b"}]}')
    remove_unlisted_checkpoints(fs.LocalFileSystem(), str(tmp_path))
    assert {one.name for one in tmp_path.iterdir()} == {"checkpoint_b", "other", SNAPSHOT}
    remove_unlisted_checkpoints(fs.LocalFileSystem(), str(tmp_path / "absent"))


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


def test_a_checkpoint_that_cannot_be_written_names_training_place_and_reason() -> None:
    config = experiment(1).variants[0]
    training_run = TrainingRun(config, 0, 1, "/nowhere", "f", "c")
    train_state = small_train_state(config.optim)
    checkpoint_manager = CheckpointManager(
        training_run,
        LabelSet(("a",)),
        DistributedContext(0, 1, torch.device("cpu")),
        "/shared/run",
        "epoch 3",
    )
    with pytest.raises(StageError) as caught, files_up_to(1000):
        checkpoint_manager.save(train_state, Progress(epoch=3, step=120))
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith("variant resnet: the checkpoint of epoch 4, step 120 could not be written to /tmp")
    assert "File too large" in said
    assert said.endswith("last good: epoch 3.")
    assert isinstance(caught.value.__cause__, OSError), "worth a restart"


def small_train_state(config: Any) -> TrainState:
    network = nn.Linear(1000, 1)
    return make_train_state(
        network, nn.MSELoss(), [{"params": list(network.parameters()), "lr": 1e-3}], config, 5
    )
