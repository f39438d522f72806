"""The loss of hard and soft labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from canopy.config import LossConfig
from canopy.losses.distillation import DistillationLoss
from canopy.losses.multilabel import build_loss

COUNTS_K, ROWS = np.array([10, 5, 1]), 20


def tensors() -> tuple[Tensor, Tensor, Tensor]:
    """Logits, hard labels and soft ones."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator)
    return (
        logits,
        (torch.rand(6, 3, generator=generator) < 0.4).float(),
        torch.rand(6, 3, generator=generator),
    )


def test_the_loss_is_the_weighted_sum_of_both_parts() -> None:
    logits, hard, soft = tensors()
    base = build_loss(LossConfig(name="focal"), COUNTS_K, ROWS)
    found = DistillationLoss(base, 0.3, 2.0)(logits, torch.cat([hard, soft], 1))
    expected = 0.7 * base(logits, hard) + 0.3 * 4 * bce(logits / 2, soft)
    torch.testing.assert_close(found, expected)


def test_with_plain_cross_entropy_and_no_temperature_it_is_the_loss_of_mixed_labels() -> None:
    logits, hard, soft = tensors()
    base = build_loss(LossConfig(), COUNTS_K, ROWS)
    found = DistillationLoss(base, 0.4, 1.0)(logits, torch.cat([hard, soft], 1))
    torch.testing.assert_close(found, bce(logits, 0.6 * hard + 0.4 * soft))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_labels_alone_pull_the_logits_to_those_of_the_ensemble(temperature: float) -> None:
    target = torch.tensor([[2.0, -1.0, 0.5]])
    logits = torch.zeros(1, 3, requires_grad=True)
    loss = DistillationLoss(build_loss(LossConfig(), COUNTS_K, ROWS), 1.0, temperature)
    targets = torch.cat([torch.tensor([[0.0, 1.0, 0.0]]), torch.sigmoid(target / temperature)], 1)
    optimizer = torch.optim.LBFGS([logits], max_iter=50)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = loss(logits, targets)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(logits.detach(), target, atol=1e-2, rtol=0)
