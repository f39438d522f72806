"""A model read back from a run directory: equal to what was stored, or refused in one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from canopy.config import ModelConfig, VariantConfig
from canopy.errors import RunDirError
from canopy.labels import LabelSet
from canopy.models.network import build_model
from canopy.storage.run_dir import RunDir
from canopy.train.trained_model import TrainedModel, load_trained_model

LABELS = LabelSet(("clear", "cloudy", "haze"))
VARIANT = VariantConfig(name="net", model=ModelConfig(backbone="test_resnet"))
DIRECTORY = "train/net/fold0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The directory of a finished training."""
    folder = tmp_path / DIRECTORY
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    save_file(build_model(VARIANT.model, len(LABELS)).state_dict(), folder / "weights.safetensors")
    (folder / "config.json").write_text(json.dumps(VARIANT.model_dump(mode="json")))
    (folder / "labels.json").write_text(json.dumps(LABELS.names))
    outputs = ("weights.safetensors", "config.json", "labels.json")
    RunDir(str(tmp_path)).finish(DIRECTORY, "fingerprint", outputs)
    return folder


def load(folder: Path) -> TrainedModel:
    return load_trained_model(RunDir(str(folder.parents[2])), "net", 0, LABELS, torch.device("cpu"))


def test_the_network_is_the_one_that_was_stored(folder: Path) -> None:
    trained = load(folder)
    assert trained.variant == VARIANT
    assert not trained.network.training
    stored = load_file(folder / "weights.safetensors")
    for name, tensor in trained.network.state_dict().items():
        assert torch.equal(tensor, stored[name]), name


def test_marks_without_checksums_are_accepted(folder: Path) -> None:
    RunDir(str(folder.parents[2])).finish(DIRECTORY, "fingerprint")
    assert load(folder).variant == VARIANT
    (folder / "done.json").unlink()
    assert load(folder).variant == VARIANT


def cut_weights(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def weights_of_text(folder: Path) -> None:
    (folder / "weights.safetensors").write_text("not tensors")


def no_weights(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()


def change_tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        state = load_file(folder / "weights.safetensors")
        change(state)
        save_file(state, folder / "weights.safetensors")

    return damage


def rename_tensor(state: dict[str, torch.Tensor]) -> None:
    state["head.last.bias"] = state.pop("head.final.bias")


def resize_tensor(state: dict[str, torch.Tensor]) -> None:
    state["head.final.bias"] = torch.zeros(4)


def add_tensor(state: dict[str, torch.Tensor]) -> None:
    state["more"] = torch.zeros(1)


def nan_tensor(state: dict[str, torch.Tensor]) -> None:
    state["head.final.bias"][1] = float("nan")


def infinite_tensor(state: dict[str, torch.Tensor]) -> None:
    state["head.final.weight"][0, 0] = float("inf")


def other_weights(state: dict[str, torch.Tensor]) -> None:
    state["head.final.bias"] += 1


def text(name: str, content: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_text(content)

    return damage


def config_with(**changes: object) -> Callable[[Path], None]:
    config = VARIANT.model_dump(mode="json")
    return text("config.json", json.dumps({**config, "model": {**config["model"], **changes}}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_weights, r"must hold the weights of net, fold 0\. Got: none\. Run jobs/train"),
        (cut_weights, r"weights\.safetensors must be a complete safetensors file"),
        (weights_of_text, r"weights\.safetensors must be a complete safetensors file"),
        (change_tensors(rename_tensor), r"must hold exactly the weights .* Got: no tensor head\.final\.bias"),
        (change_tensors(resize_tensor), r"head\.final\.bias of shape \(4,\) instead of \(3,\)"),
        (change_tensors(add_tensor), r"Got: an unknown tensor more\."),
        (change_tensors(nan_tensor), r"must hold finite weights\. Got: NaN .* in head\.final\.bias"),
        (change_tensors(infinite_tensor), r"must hold finite weights\. Got: NaN .* in head\.final\.weight"),
        (change_tensors(other_weights), r"weights\.safetensors must be the file that its training wrote"),
        (text("labels.json", '["cloudy", "clear", "haze"]'), r"order; label 1 must be clear\. Got: cloudy\."),
        (text("labels.json", '["clear", "cloudy"]'), r"must list the run's 3 labels\. Got: 2 labels\."),
        (text("labels.json", '{"clear": 1}'), r"must list the run's 3 labels\. Got: dict\."),
        (
            text("labels.json", '["clear", "clo'),
            r"must be the list of the training's labels\. Got: ",
        ),
        (lambda folder: (folder / "labels.json").unlink(), r"training's labels\. Got: no such file\."),
        (text("config.json", '{"name": "ne'), r"config\.json must be the config of a variant\. Got: "),
        (text("config.json", "[1, 2]"), r"config\.json must be the config of a variant\. Got: "),
        (text("config.json", '{"name": "net", "depth": 3}'), r"Got: depth: Extra inputs are not permitted\."),
        (text("config.json", "[" * 100_000), r"config\.json must be the config of a variant\. Got: "),
        (lambda folder: (folder / "config.json").unlink(), r"config of a variant\. Got: no such file\."),
        (
            config_with(backbone="no_such_net"),
            r"must describe a network .* Got: model\.backbone no_such",
        ),
        (
            config_with(head="mlp"),
            r"must hold exactly the weights of its config's network",
        ),
        (config_with(dropout=0.25), r"config\.json must be the file that its training wrote"),
    ],
)
def test_a_damaged_or_exchanged_model_is_refused_in_one_line(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(RunDirError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
