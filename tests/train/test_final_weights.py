"""Averages of weights and their choice by validation score, on the real loop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.train.finetuning import STEPS, Tuning, distance, pretrained, variant
from torch import nn

from canopy.models.network import MultiLabelNetwork
from canopy.train.final_weights import mix_weights
from canopy.train.phase_plan import is_pretrained
from canopy.train.training_records import TrainingPosition

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def weights(tmp_path: Path) -> str:
    return pretrained(tmp_path)


def test_mixtures() -> None:
    first = {"a": torch.tensor([0.0]), "count": torch.tensor(3)}
    final = {"a": torch.tensor([1.0]), "count": torch.tensor(9), "new": torch.tensor([5.0])}
    mixed = mix_weights(first, final, 0.25)
    assert {name: tensor.item() for name, tensor in mixed.items()} == {"a": 0.25, "count": 9, "new": 5.0}


@pytest.mark.parametrize("best", [0.3, 1.0])
def test_wise_ft_takes_the_mixture_with_the_best_validation_score(weights: str, best: float) -> None:
    """The score is highest where the backbone stands at ``best`` of its way."""
    tuning = Tuning(variant(weights, wise_ft=True))

    def score(network: nn.Module, progress: TrainingPosition) -> float:
        if progress.epoch < 2:
            return -10.0 + progress.epoch  # so that the third epoch is the best one
        final = tuning.states[0].unwrapped.state_dict()
        way = distance(final, tuning.starts[0])
        return -abs(distance(network.state_dict(), tuning.starts[0]) / way - best)

    tuning.score = score
    state = tuning.run()
    assert len(tuning.scores) == 10
    assert max(tuning.scores, key=lambda name: tuning.scores[name]) == (
        "epoch 3" if best == 1 else "wise_ft 0.3"
    )
    first, final = tuning.starts[0], tuning.states[0].unwrapped.state_dict()
    for name, tensor in state.best_weights.items():
        moved = tensor.is_floating_point() and is_pretrained(name)
        expected = torch.lerp(first[name], final[name], best) if moved else final[name]
        torch.testing.assert_close(tensor, expected, rtol=1e-4, atol=1e-6, msg=name)
    assert tuning.progress.best_score == pytest.approx(0, abs=1e-4)


def test_wise_ft_after_a_probe_mixes_the_head_too(weights: str) -> None:
    tuning = Tuning(variant(weights, method="lp_ft", probe_epochs=2, wise_ft=True))
    tuning.run()
    assert set(tuning.states[1].first_weights) == set(tuning.starts[1])


def test_swa_is_the_mean_after_the_last_epochs_at_a_constant_rate(weights: str) -> None:
    settings = {"epochs": 5, "warmup_fraction": 0.2}
    tuning = Tuning(
        variant(weights, optim=settings, swa_epochs=3, swa_lr=0.25, batch_norm="frozen"),
        score=lambda network, progress: float(progress.epoch),
    )
    state = tuning.run()
    rates = [record.lr for record in tuning.progress.history]
    assert rates[2:] == [pytest.approx(0.25 * 1e-2)] * 3
    assert set(tuning.scores) == {"epoch 5", "swa"}
    # the epochs scored 0 to 4, the average 5
    assert (tuning.progress.best_score, tuning.progress.best_epoch) == (5.0, 5)
    for name, tensor in state.best_weights.items():
        if tensor.is_floating_point():
            mean = torch.stack([after[name] for after in tuning.after_epoch[2:]]).mean(0)
            torch.testing.assert_close(tensor, mean, rtol=1e-4, atol=1e-5, msg=name)


def test_an_average_that_scores_worse_is_dropped(weights: str) -> None:
    tuning = Tuning(variant(weights, swa_epochs=1), score=lambda network, progress: -progress.epoch)
    state = tuning.run()
    assert tuning.progress.best_epoch == 1
    for name, tensor in tuning.after_epoch[0].items():
        assert torch.equal(state.best_weights[name], tensor), name


def test_an_average_of_weights_has_statistics_of_its_own(weights: str) -> None:
    tuning = Tuning(variant(weights, swa_epochs=2), score=lambda network, progress: float(progress.epoch))
    state = tuning.run()
    assert state.hooks.average is not None
    copied = state.hooks.average.module.state_dict()
    assert not torch.equal(
        state.best_weights["backbone.bn1.running_mean"], copied["backbone.bn1.running_mean"]
    )
    assert torch.equal(state.best_weights["backbone.bn1.weight"], copied["backbone.bn1.weight"])
    assert len(tuning.after_epoch) * STEPS == 12


def test_wise_ft_mixes_the_fine_tuned_weights_when_the_probe_was_better(weights: str) -> None:
    seen: list[float] = []

    def score(network: MultiLabelNetwork, progress: TrainingPosition) -> float:
        if progress.epoch == 5:  # all phases have ended: the mixtures
            seen.append(distance(dict(network.state_dict()), tuning.starts[1]))
        return 1.0 if progress.epoch == 1 else 0.1

    tuning = Tuning(variant(weights, method="lp_ft", probe_epochs=2, wise_ft=True), score)
    tuning.run()
    assert tuning.progress.best_epoch == 2
    assert len(seen) == 9
    assert seen == sorted(seen)
    assert seen[0] > 0
