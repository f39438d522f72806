"""The execution of a training: chosen once, kept in checkpoints; it changes results by rounding alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.train.finetuning import LABELS, batches
from torch import nn

from canopy.config import ModelConfig, OptimConfig, ResourcesConfig, VariantConfig
from canopy.models.autotune import Autotune
from canopy.models.execution import Execution, MemoryFormat
from canopy.models.network import build_model, parameter_groups
from canopy.models.weights import copy_weights
from canopy.train import autotune
from canopy.train.autotune import training_execution
from canopy.train.checkpoint.state_io import load_checkpoint, read_progress, save_checkpoint
from canopy.train.loop import TrainState, make_train_state, train_step
from canopy.train.training_records import TrainingPosition

CPU = torch.device("cpu")


def variant(autotuned: bool) -> VariantConfig:
    return VariantConfig(
        name="v",
        model=ModelConfig(backbone="test_resnet"),
        optim=OptimConfig(batch_size=8),
        scale=ResourcesConfig(autotune=autotuned),
    )


def execution(variant: VariantConfig, progress: TrainingPosition) -> Execution | None:
    return training_execution(variant, progress, CPU, 3, 32, None, batch_size=8, evaluated_share=0.5)


def test_nothing_is_chosen_unless_asked_for() -> None:
    assert execution(variant(False), TrainingPosition()) is None


def test_timed_steps_choose_once_per_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANOPY_CACHE", str(tmp_path))
    monkeypatch.setattr(autotune, "EVALUATION_BATCHES", (8, 256))
    monkeypatch.setattr("canopy.models.autotune.MOST_ROUNDS", 1)
    found = execution(variant(True), TrainingPosition())
    assert found is not None
    assert found.threads == 1
    assert found.batch_size in {8, 256}
    assert found.precision is None, "training keeps the precision of its config"
    assert list((tmp_path / "execution").iterdir())


def test_a_training_under_way_keeps_what_its_checkpoint_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> Execution:
        raise AssertionError

    monkeypatch.setattr(Autotune, "settings", never)
    kept = Execution(1, 64, "contiguous")
    for progress in (TrainingPosition(epoch=1, execution=kept), TrainingPosition(step=3, execution=kept)):
        restored = TrainingPosition.from_json(progress.to_json())
        assert execution(variant(True), restored) == kept
        assert execution(variant(False), restored) == kept, "switching it off later changes nothing"
    plain = TrainingPosition(epoch=1)
    assert "execution" not in plain.to_json(), "files without a choice stay as they were"
    assert execution(variant(True), TrainingPosition.from_json(plain.to_json())) is None


def test_memory_format_and_threads_change_results_by_rounding_alone() -> None:
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for setting in (Execution(1, 8), Execution(1, 8, "contiguous")):
        torch.manual_seed(0)
        network = build_model(ModelConfig(backbone="test_resnet"), 3, np.full(3, 0.5))
        network = network.to(memory_format=setting.torch_format)
        loss = network.train()(images.contiguous(memory_format=setting.torch_format)).square().mean()
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        found.append((float(loss.detach()), gradient))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-6)


def test_timed_steps_run_the_network_as_it_is() -> None:
    with pytest.raises(ValidationError, match=r"scale\.autotune must be false with scale\.compile"):
        ResourcesConfig(autotune=True, compile=True)


@pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
def test_a_restart_with_the_stored_settings_gives_the_same_bits(
    tmp_path: Path, memory_format: MemoryFormat
) -> None:
    setting, tuned = Execution(1, 8, memory_format), variant(True)

    def new_state() -> TrainState:
        torch.manual_seed(0)
        network = build_model(tuned.model, 3, np.full(3, 0.5))
        network = network.to(memory_format=setting.torch_format)
        groups = parameter_groups(network, tuned.optim.lr, tuned.optim.weight_decay)
        return make_train_state(network.train(), nn.BCEWithLogitsLoss(), groups, tuned.optim, 6)

    def steps(state: TrainState, first: int, stop: int) -> None:
        for images, targets in itertools.islice(batches(0, first), stop - first):
            given = images.contiguous(memory_format=setting.torch_format)
            train_step(state, given, targets, tuned.optim)

    undisturbed = new_state()
    steps(undisturbed, 0, 6)
    stopped = new_state()
    steps(stopped, 0, 3)
    stopped.best_weights = copy_weights(stopped.unwrapped)
    save_checkpoint(tmp_path, stopped, TrainingPosition(step=3, execution=setting), tuned, LABELS)

    progress = read_progress(tmp_path)
    assert execution(tuned, progress) == setting
    resumed = new_state()
    load_checkpoint(tmp_path, resumed, CPU)
    steps(resumed, 3, 6)
    expected, found = undisturbed.unwrapped.state_dict(), resumed.unwrapped.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
