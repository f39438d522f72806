"""Fine-tuning in phases, on the real loop: frozen backbones, probes, LP-FT, unfreezing, batch norm."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from tests.train.finetuning import STEPS, Killed, Tuning, batches, pretrained, variant
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from canopy.models.backbone_layers import layer_distances
from canopy.models.lora import MARK, merge_lora
from canopy.models.network import MultiLabelNetwork, build_model
from canopy.train.classifier_retraining import CLASS_BALANCED
from canopy.train.phase_plan import is_pretrained, planned_epochs, training_phases

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def weights(tmp_path: Path) -> str:
    return pretrained(tmp_path)


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Names of the tensors that differ."""
    return {name for name in before if not torch.equal(before[name], after[name])}


def network_of(tuning: Tuning) -> MultiLabelNetwork:
    network = tuning.states[-1].unwrapped
    assert isinstance(network, MultiLabelNetwork)
    return network


def test_the_order_of_the_phases() -> None:
    whole = variant(
        "w", optim={"rebalance_epochs": 2}, method="lp_ft", probe_epochs=5, swa_epochs=1, l2_sp=0.1
    )
    probe, second, last = training_phases(whole)
    assert [phase.kind for phase in (probe, second, last)] == ["probe", "whole", "classifier"]
    assert planned_epochs([probe, second, last]) == 5 + 3 + 2
    assert second.variant == whole
    assert (probe.variant.finetune.method, probe.variant.finetune.l2_sp) == ("probe", 0)
    assert last.variant.sampling == CLASS_BALANCED
    assert len({phase.variant.seed for phase in (probe, second, last)}) == 3
    assert [p.kind for p in training_phases(variant("w", method="probe"))] == ["probe"]
    faster = training_phases(variant("w", method="probe", probe_lr=0.5))[0].variant.optim
    assert (faster.lr, faster.ema_decay) == (0.5, 0)


def test_factor_zero_freezes_the_backbone_and_trains_attention_and_head(weights: str) -> None:
    tuning = Tuning(variant(weights, model={"cbam": "last"}, optim={"backbone_lr_factor": 0, "lr": 0.1}))
    state = tuning.run()
    moved = changed(tuning.starts[0], state.unwrapped.state_dict())
    assert moved
    assert not any(is_pretrained(name) for name in moved), "weights and batch-norm statistics"
    assert {"cbam.gate", "head.final.weight", "head.final.bias"} <= moved
    assert tuning.progress.history[-1].train_loss < 0.8 * tuning.progress.history[0].train_loss


def test_a_probe_computes_each_view_once_and_leaves_the_backbone_as_it_was(weights: str) -> None:
    tuning = Tuning(variant(weights, method="probe", probe_epochs=7, probe_views=2, probe_lr=0.05))
    state = tuning.run()
    assert tuning.extracted == 2 * STEPS
    assert changed(tuning.starts[0], state.unwrapped.state_dict()) == {"head.final.weight", "head.final.bias"}
    assert [record.phase for record in tuning.progress.history] == [1] * 7
    assert tuning.progress.history[-1].train_loss < 0.7 * tuning.progress.history[0].train_loss
    network = network_of(tuning).eval()
    images, _ = next(batches(0))
    with torch.no_grad():
        torch.testing.assert_close(network(images), network(network.pooled(images)), rtol=0, atol=0)


def test_lp_ft_trains_everything_from_the_best_head_of_the_probe(weights: str) -> None:
    def score(network: nn.Module, progress: Any) -> float:
        return (0.1, 0.9, 0.2, 0.3, 0.4, 0.5)[int(progress.epoch)]

    tuning = Tuning(variant(weights, method="lp_ft", probe_epochs=3, probe_lr=0.05), score)
    state = tuning.run()
    assert [record.phase for record in tuning.progress.history] == [1, 1, 1, 2, 2, 2]
    # the second epoch of the probe was the best one
    assert changed(tuning.after_epoch[1], tuning.starts[1]) == set()
    weights_moved = changed(tuning.starts[1], state.unwrapped.state_dict())
    assert {name for name, _ in network_of(tuning).named_parameters()} <= weights_moved
    assert (tuning.progress.best_epoch, tuning.progress.best_score) == (2, 0.9)
    assert changed(tuning.after_epoch[1], state.best_weights) == set(), "no epoch of the whole was better"


@pytest.mark.parametrize("die_after", [2, 3, 5])
def test_a_restart_changes_nothing(weights: str, tmp_path: Path, die_after: int) -> None:
    """With every option at once, killed in the probe, between the phases, and in the last epochs."""
    whole = variant(
        weights,
        model={"input_size": 32},
        optim={"ema_decay": 0.6},
        method="lp_ft",
        probe_epochs=3,
        unfreeze_epochs=1,
        batch_norm="reestimated",
        l2_sp=0.1,
        wise_ft=True,
        input_sizes=(24, 32),
        swa_epochs=2,
    )

    def score(network: nn.Module, progress: Any) -> float:
        images, targets = next(batches(99))
        with torch.no_grad():
            return -float(nn.functional.binary_cross_entropy_with_logits(network(images), targets))

    undisturbed = Tuning(whole, score)
    expected = undisturbed.run()
    with pytest.raises(Killed):
        Tuning(whole, score, tmp_path, die_after).run()
    again = Tuning(whole, score, tmp_path)
    state = again.run()
    assert [r.train_loss for r in again.progress.history] == [
        r.train_loss for r in undisturbed.progress.history
    ]
    assert again.scores == undisturbed.scores
    assert {"swa", "wise_ft 0.5"} <= set(again.scores)
    assert again.progress.best_score == undisturbed.progress.best_score
    assert changed(expected.best_weights, state.best_weights) == set()
    assert changed(expected.unwrapped.state_dict(), state.unwrapped.state_dict()) == set()


def test_layers_are_unfrozen_from_the_head_down(weights: str) -> None:
    epochs = 5
    tuning = Tuning(variant(weights, optim={"epochs": epochs}, unfreeze_epochs=4))
    tuning.run()
    distances = layer_distances(network_of(tuning).backbone)
    deepest = max(distances.values())
    assert deepest >= 4
    last_moved = []
    for epoch, after in enumerate(tuning.after_epoch):
        before = tuning.starts[0] if epoch == 0 else tuning.after_epoch[epoch - 1]
        moved = {name.removeprefix("backbone.") for name in changed(before, after)} & set(distances)
        for name, distance in distances.items():
            # a layer at distance d of D is trained from epoch ceil(4 d / D) on
            assert (name in moved) == (distance * 4 <= epoch * deepest), (epoch, name, distance)
        last_moved.append(max((distances[name] for name in moved), default=0))
    assert last_moved[0] == 0
    assert last_moved == sorted(last_moved)
    assert last_moved[4] == deepest
    assert "head.final.weight" in changed(tuning.starts[0], tuning.after_epoch[0])


@pytest.mark.parametrize("kind", ["train", "frozen", "reestimated"])
def test_batch_norm_statistics(weights: str, kind: str) -> None:
    tuning = Tuning(variant(weights, batch_norm=kind))
    network_before = tuning.state_of(training_phases(tuning.variant)[0], None).unwrapped
    given = {name: tensor.clone() for name, tensor in network_before.state_dict().items()}
    state = tuning.run()
    statistics = {name for name in given if name.endswith(("running_mean", "running_var"))}
    assert len(statistics) > 4
    from_file, in_training = (
        changed(given, tuning.starts[0]) & statistics,
        changed(tuning.starts[0], state.unwrapped.state_dict()) & statistics,
    )
    assert from_file == (statistics if kind == "reestimated" else set())
    assert in_training == (statistics if kind == "train" else set())
    assert "backbone.bn1.weight" in changed(given, state.unwrapped.state_dict()), "its weights are trained"


def test_reestimated_statistics_are_those_of_the_training_images(weights: str) -> None:
    tuning = Tuning(variant(weights, batch_norm="reestimated"))
    tuning.run()
    network = network_of(tuning)
    network.load_state_dict(tuning.starts[0])
    first = next(module for module in network.modules() if isinstance(module, _BatchNorm))
    means: list[Tensor] = []
    first.register_forward_pre_hook(lambda _, inputs: means.append(inputs[0].mean((0, 2, 3))))
    with torch.no_grad():
        for images, _ in itertools.islice(batches(0), 3):
            network.eval()(images)
    assert first.running_mean is not None
    torch.testing.assert_close(first.running_mean, torch.stack(means).mean(0), rtol=1e-4, atol=1e-5)
    assert first.momentum == 0.1


def test_progressive_sizes_reach_the_network_in_training_only(weights: str) -> None:
    seen: list[tuple[bool, int]] = []
    tuning = Tuning(
        variant(weights, model={"input_size": 32}, optim={"epochs": 4}, input_sizes=(16, 24, 32)),
        score=lambda network, progress: float(network(next(batches(1))[0]).detach().sum()),
    )
    state = tuning.state_of(training_phases(tuning.variant)[0], None)
    network: Any = state.unwrapped
    forward = network.backbone.forward_features

    def watched(x: Tensor) -> Tensor:
        seen.append((network.training, x.shape[-1]))
        result: Tensor = forward(x)
        return result

    network.backbone.forward_features = watched
    tuning.train(training_phases(tuning.variant)[0], state)
    sizes = [size for training, size in seen if training]
    assert sizes == [16] * STEPS * 2 + [24] * STEPS + [32] * STEPS
    assert {size for training, size in seen if not training} == {32}


@pytest.fixture
def vit_weights(tmp_path: Path) -> str:
    """Weights of a small transformer for images of 32 pixels."""
    pytest.importorskip("peft")
    torch.manual_seed(7)
    network: Any = timm.create_model("test_vit", num_classes=0, img_size=32)
    save_file(network.state_dict(), tmp_path / "vit.safetensors")
    return str(tmp_path / "vit.safetensors")


VIT = {"backbone": "test_vit", "input_size": 32}


def loss_as_score(network: nn.Module, progress: Any) -> float:
    images, targets = next(batches(99))
    with torch.no_grad():
        return -float(nn.functional.binary_cross_entropy_with_logits(network(images), targets))


def test_lora_trains_its_additions_and_leaves_plain_weights(vit_weights: str) -> None:
    tuning = Tuning(variant(vit_weights, model=VIT, optim={"lr": 0.02}, lora_rank=2, lora_alpha=4))
    state = tuning.run()
    moved = changed(tuning.starts[0], state.unwrapped.state_dict())
    assert {"head.final.weight", "head.final.bias"} < moved
    assert all(MARK in name for name in moved if name.startswith("backbone."))
    assert tuning.progress.history[-1].train_loss < tuning.progress.history[0].train_loss
    images, _ = next(batches(5))
    network = network_of(tuning).eval()
    with torch.no_grad():
        expected = network(images)
        assert merge_lora(network)
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)
    plain = build_model(tuning.variant.model.untrained, 3)
    plain.load_state_dict(network.state_dict())


@pytest.mark.parametrize("die_after", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_lora_after_a_probe_resumes_to_the_same_weights(
    vit_weights: str, tmp_path: Path, die_after: int
) -> None:
    whole = variant(
        vit_weights, VIT, {"ema_decay": 0.6}, method="lp_ft", probe_epochs=2, probe_lr=0.05, lora_rank=2
    )
    undisturbed = Tuning(whole, loss_as_score)
    expected = undisturbed.run()
    with pytest.raises(Killed):
        Tuning(whole, loss_as_score, tmp_path, die_after).run()
    again = Tuning(whole, loss_as_score, tmp_path)
    assert changed(expected.best_weights, again.run().best_weights) == set()
    assert again.progress.best_score == undisturbed.progress.best_score


def test_a_probe_that_stays_the_best_gives_weights_that_lora_networks_take(vit_weights: str) -> None:
    tuning = Tuning(
        variant(vit_weights, VIT, method="lp_ft", probe_epochs=2, probe_lr=0.05, lora_rank=2),
        lambda network, progress: -float(progress.epoch),
    )
    state = tuning.run()
    assert tuning.progress.best_epoch == 1
    network = network_of(tuning)
    network.load_state_dict(state.best_weights)
    assert merge_lora(network)
    first = {name: t for name, t in tuning.after_epoch[0].items() if name.startswith("backbone.")}
    assert changed(first, network.state_dict()) == set(), "the probe's backbone"
