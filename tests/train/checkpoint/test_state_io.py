"""The files of a checkpoint: what they hold, how damaged ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from canopy.config import LossConfig, OptimConfig, VariantConfig
from canopy.errors import RunDirError
from canopy.labels import LabelSet
from canopy.models.weights import copy_weights
from canopy.train.checkpoint.state_io import (
    load_checkpoint,
    optimizer_tensors,
    read_progress,
    restore_optimizer,
    save_checkpoint,
)
from canopy.train.loop import TrainState, make_train_state, train_step
from canopy.train.training_records import EpochRecord, TrainingPosition

CONFIG = OptimConfig(ema_decay=0.9)
CPU = torch.device("cpu")
RECORD = EpochRecord(1, 1, 0.5, 0.7, 0.7, 0.6, 100.0, 1e-3, 2.0)
PROGRESS = TrainingPosition(epoch=1, best_score=0.7, best_epoch=1, history=[RECORD])


def new_train_state(seed: int = 0) -> TrainState:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
    network = network.to(memory_format=torch.channels_last)
    groups = [{"params": list(network.parameters()), "lr": 1e-2, "weight_decay": 0.01}]
    return make_train_state(network, nn.BCEWithLogitsLoss(), groups, CONFIG, 10)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, TrainState]:
    """A checkpoint after two steps, and the state in it."""
    train_state = new_train_state()
    for _ in range(2):
        train_step(train_state, torch.randn(4, 3, 6, 6), torch.ones(4, 3), CONFIG)
    train_state.best_weights = copy_weights(new_train_state(seed=2).unwrapped)
    variant = VariantConfig(name="v", loss=LossConfig(name="focal"))
    save_checkpoint(tmp_path, train_state, PROGRESS, variant, LabelSet(("a", "b", "c")))
    return tmp_path, train_state


def test_a_checkpoint_restores_the_state_to_the_bit(saved: tuple[Path, TrainState]) -> None:
    folder, expected = saved
    found = new_train_state(seed=1)
    assert load_checkpoint(folder, found, CPU) == PROGRESS
    for a, b in (
        (expected.unwrapped.state_dict(), found.unwrapped.state_dict()),
        (expected.eval_model.state_dict(), found.eval_model.state_dict()),
        (optimizer_tensors(expected.optimizer), optimizer_tensors(found.optimizer)),
        (expected.best_weights, found.best_weights),
    ):
        assert a.keys() == b.keys()
        assert all(torch.equal(tensor, b[name]) for name, tensor in a.items())
    rates = [group["lr"] for group in found.optimizer.param_groups]
    assert rates == [group["lr"] for group in expected.optimizer.param_groups]


def test_a_checkpoint_holds_no_pickle(saved: tuple[Path, TrainState]) -> None:
    folder, _ = saved
    assert {file.name for file in folder.iterdir()} == {
        "model.safetensors",
        "average.safetensors",
        "best.safetensors",
        "optimizer.safetensors",
        "progress.json",
        "config.json",
        "labels.json",
    }
    assert not any(b"\x80\x04" in file.read_bytes()[:2] for file in folder.iterdir())
    stored = json.loads((folder / "progress.json").read_text())
    assert list(stored) == ["progress", "schedule"]
    assert stored["progress"] == PROGRESS.to_json()


def test_moments_take_the_memory_order_of_their_parameter(saved: tuple[Path, TrainState]) -> None:
    _, expected = saved
    found = new_train_state(seed=1)
    restore_optimizer(found.optimizer, optimizer_tensors(expected.optimizer))
    kernel = found.optimizer.param_groups[0]["params"][0]
    assert kernel.stride() != torch.empty(kernel.shape).stride(), "plain order would prove nothing"
    assert found.optimizer.state[kernel]["exp_avg"].stride() == kernel.stride()


@pytest.mark.parametrize("name", ["model", "average", "best", "optimizer"])
def test_damaged_tensors_are_refused_in_one_line(saved: tuple[Path, TrainState], name: str) -> None:
    path = saved[0] / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(
        RunDirError, match=rf"{name}\.safetensors must be a readable safetensors file"
    ) as caught:
        load_checkpoint(saved[0], new_train_state(), CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"progress": 3}', '{"progress": {"height": 1}}', "null"]
)
def test_a_damaged_progress_is_refused_in_one_line(saved: tuple[Path, TrainState], content: str) -> None:
    (saved[0] / "progress.json").write_text(content)
    with pytest.raises(RunDirError, match=r"progress\.json must be the progress of a checkpoint") as caught:
        read_progress(saved[0])
    assert "\n" not in str(caught.value)
