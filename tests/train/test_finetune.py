"""Fine-tuning within the loop: decay towards the first weights, frozen groups, batch-norm statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.finetuning import Tuning, distance, pretrained, variant
from torch import nn

from canopy.train.finetune import (
    decay_towards_first_weights,
    drop_gradients_of_frozen_groups,
    reestimate_batch_norm,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def weights(tmp_path: Path) -> str:
    return pretrained(tmp_path)


def test_l2_sp_pulls_by_its_formula() -> None:
    first, new = nn.Parameter(torch.tensor([1.0, -2.0])), nn.Parameter(torch.tensor([3.0]))
    groups: list[dict[str, Any]] = [
        {"params": [first], "lr": 0.1, "weight_decay": 0.5},
        {"params": [new], "lr": 0.1, "weight_decay": 0.5},
    ]
    optimizer = torch.optim.AdamW(groups, fused=True)
    decay_towards_first_weights(optimizer, [first], strength=2.0)
    with torch.no_grad():
        first.add_(1.0)
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
