"""The craft itself: decay towards the first weights, averages of weights, their choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.finetuning import STEPS, Tuning, pretrained, variant
from torch import Tensor, nn

from canopy.train.finetune import (
    decay_towards_first_weights,
    drop_gradients_of_frozen_groups,
    mix_weights,
    reestimate_batch_norm,
)
from canopy.train.phases import is_pretrained

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def weights(tmp_path: Path) -> str:
    return pretrained(tmp_path)


def distance(state: dict[str, Tensor], first: dict[str, Tensor]) -> float:
    """Distance of the backbone's parameters from their first values."""
    names = [name for name in first if is_pretrained(name) and not name.endswith(("mean", "var", "tracked"))]
    return float(sum((state[name] - first[name]).square().sum() for name in names) ** 0.5)


def test_l2_sp_pulls_by_its_formula() -> None:
    first, new = nn.Parameter(torch.tensor([1.0, -2.0])), nn.Parameter(torch.tensor([3.0]))
    groups: list[dict[str, Any]] = [
        {"params": [first], "lr": 0.1, "weight_decay": 0.5},
        {"params": [new], "lr": 0.1, "weight_decay": 0.5},
    ]
    optimizer = torch.optim.AdamW(groups, fused=True)
    decay_towards_first_weights(optimizer, [first], strength=2.0)
    with torch.no_grad():
        first += 1.0
    first.grad, new.grad = torch.zeros(2), torch.zeros(1)
    optimizer.step()
    # w - lr * strength * (w - w0) = w0 + 1 - 0.1 * 2 * 1; the other group decays towards 0 as before
    torch.testing.assert_close(first.detach(), torch.tensor([1.8, -1.2]))
    torch.testing.assert_close(new.detach(), torch.tensor([3.0 * (1 - 0.1 * 0.5)]))


def test_l2_sp_keeps_the_backbone_near_its_first_weights(weights: str) -> None:
    distances = []
    for strength in (0.0, 1.0, 20.0):
        tuning = Tuning(variant(weights, l2_sp=strength))
        state = tuning.run()
        distances.append(distance(state.unwrapped.state_dict(), tuning.starts[0]))
        assert tuning.progress.history[-1].train_loss < tuning.progress.history[0].train_loss
    assert distances[2] < 0.7 * distances[0]
    assert distances[2] < distances[1] < distances[0]


def test_groups_without_a_rate_get_no_gradients() -> None:
    still, moving = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = torch.optim.AdamW([{"params": [still], "lr": 0.0}, {"params": [moving], "lr": 0.1}])
    still.grad, moving.grad = torch.ones(2), torch.ones(2)
    drop_gradients_of_frozen_groups(optimizer)
    assert still.grad is None
    assert moving.grad is not None


def test_mixtures() -> None:
    first = {"a": torch.tensor([0.0]), "count": torch.tensor(3)}
    final = {"a": torch.tensor([1.0]), "count": torch.tensor(9), "new": torch.tensor([5.0])}
    mixed = mix_weights(first, final, 0.25)
    assert {name: tensor.item() for name, tensor in mixed.items()} == {"a": 0.25, "count": 9, "new": 5.0}


@pytest.mark.parametrize("best", [0.3, 1.0])
def test_wise_ft_takes_the_mixture_with_the_best_validation_score(weights: str, best: float) -> None:
    """The score is highest where the backbone stands at ``best`` of its way."""
    tuning = Tuning(variant(weights, wise_ft=True))

    def score(network: nn.Module, progress: Any) -> float:
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
    assert state.craft.average is not None
    copied = state.craft.average.module.state_dict()
    assert not torch.equal(
        state.best_weights["backbone.bn1.running_mean"], copied["backbone.bn1.running_mean"]
    )
    assert torch.equal(state.best_weights["backbone.bn1.weight"], copied["backbone.bn1.weight"])
    assert len(tuning.after_epoch) * STEPS == 12


def test_reestimating_restores_every_mode() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.3), nn.Dropout(0.5)).train()
    network[2].eval()
    images = [torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    reestimate_batch_norm(network, images)
    assert [module.training for module in network] == [True, True, False]
    norm = network[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.momentum == 0.3
    with torch.no_grad():
        mean = torch.stack([network[0](batch).mean((0, 2, 3)) for batch in images]).mean(0)
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, mean)
    reestimate_batch_norm(nn.Linear(2, 2), iter(lambda: pytest.fail("nothing to measure"), None))
