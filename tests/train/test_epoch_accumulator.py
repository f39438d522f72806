"""Totals of one epoch: exact sums, and the first loss or weight that is not finite."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from canopy.errors import StageError
from canopy.train.epoch_accumulator import FINITE_CHECK_STEPS, EpochAccumulator, check_losses_finite
from canopy.train.training_records import EpochTotals


def test_totals_continue_from_a_checkpoint_in_the_same_order_of_additions() -> None:
    losses, network = torch.rand(3 * FINITE_CHECK_STEPS + 7, dtype=torch.float64), nn.Linear(1, 1)
    whole = EpochAccumulator(EpochTotals(), 0, "v", "")
    for loss in losses:
        whole.add(loss, 4)
    first = EpochAccumulator(EpochTotals(), 0, "v", "")
    for loss in losses[:60]:
        first.add(loss, 4)
    second = EpochAccumulator(first.reduce(network), 60, "v", "epoch 1, step 60")
    for loss in losses[60:]:
        second.add(loss, 4)
    expected, found = whole.reduce(network), second.reduce(network)
    assert found.loss_sum == expected.loss_sum == sum_in_order(losses.tolist())
    assert (found.steps, found.images) == (len(losses), 4 * len(losses))


def sum_in_order(values: list[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


def test_the_clock_stands_still_while_a_checkpoint_is_saved() -> None:
    metrics = EpochAccumulator(EpochTotals(seconds=10.0), 0, "v", "")
    metrics.clock_read_at -= 5
    assert metrics.reduce(nn.Linear(1, 1)).seconds == pytest.approx(15, abs=0.5)
    metrics.clock_read_at -= 100  # the checkpoint took 100 s
    metrics.restart_clock("epoch 1, step 3")
    assert metrics.reduce(nn.Linear(1, 1)).seconds == pytest.approx(15, abs=0.5)


def test_a_loss_that_is_not_finite_is_named_by_its_step() -> None:
    with pytest.raises(StageError, match=r"variant v: the loss became inf at step 8; .* of epoch 2\."):
        check_losses_finite([1.0, float("inf"), float("nan")], 9, "v", "epoch 2")
    metrics = EpochAccumulator(EpochTotals(), 100, "v", "")
    for step in range(FINITE_CHECK_STEPS - 1):
        metrics.add(torch.tensor(float("nan") if step == 4 else 1.0), 1)
    with pytest.raises(StageError, match=r"became nan at step 105; last good: no checkpoint yet"):
        metrics.add(torch.tensor(1.0), 1)


def test_a_weight_that_is_not_finite_is_found() -> None:
    network = nn.Linear(1, 1)
    nn.init.constant_(network.weight, float("nan"))
    with pytest.raises(StageError, match=r"weights are not finite after step 7"):
        EpochAccumulator(EpochTotals(), 7, "v", "").reduce(network)
    for precision, way_out in (
        ("bfloat16", ", or set optim.precision to float32."),
        ("float32", "clip_norm."),
    ):
        with pytest.raises(StageError) as error:
            EpochAccumulator(EpochTotals(), 7, "v", "", precision).reduce(network)
        assert str(error.value).endswith(way_out)
