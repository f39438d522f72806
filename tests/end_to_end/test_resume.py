"""A training that is interrupted at any step and resumed gives the same result to the bit."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from canopy.config import OptimConfig, VariantConfig
from canopy.labels import LabelSet
from canopy.train.checkpoint.state_io import load_checkpoint, optimizer_tensors, save_checkpoint
from canopy.train.loop import TrainState, make_train_state, train
from canopy.train.training_records import EpochRecord, TrainingPosition, ValidationScores

STEPS, EPOCHS = 7, 3
CONFIG = OptimConfig(epochs=EPOCHS, lr=2e-2, ema_decay=0.9, clip_norm=1.0)
LABELS = LabelSet(("a", "b", "c"))
CPU = torch.device("cpu")


class Killed(Exception):
    pass


def new_train_state(config: OptimConfig = CONFIG) -> TrainState:
    """A network with everything that has state or is random: batch norm, dropout, average, clipping, warm-up.

    It is in channels-last memory order, as in trainings; a checkpoint holds contiguous order.
    """
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(128, 3)
    )
    network = network.to(memory_format=torch.channels_last)
    groups = [{"params": list(network.parameters()), "lr": config.lr, "weight_decay": 0.01}]
    return make_train_state(network, nn.BCEWithLogitsLoss(), groups, config, config.epochs * STEPS)


def batches(first_step: int) -> Iterator[tuple[Tensor, Tensor]]:
    for step in itertools.count(first_step):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(16, 3, 6, 6, generator=generator)
        yield images, (images.mean((2, 3)) > 0).float()


def evaluate(network: nn.Module) -> ValidationScores:
    network.eval()
    images, targets = next(batches(10_000))
    with torch.no_grad():
        score = -float(nn.functional.binary_cross_entropy_with_logits(network(images), targets))
    return ValidationScores(score, score, 0.5)


def run(
    train_state: TrainState,
    progress: TrainingPosition,
    save: Callable[[TrainingPosition], None] = lambda progress: None,
    should_checkpoint: Callable[[], bool] = lambda: False,
) -> None:
    torch.rand(3)  # random numbers drawn before a training must not change it
    train(
        train_state,
        batches(progress.epoch * STEPS + progress.step),
        STEPS,
        CONFIG,
        progress,
        evaluate=evaluate,
        save_checkpoint=save,
        on_step_end=lambda epoch, step, images: None,
        name="v",
        seed=1,
        should_checkpoint=should_checkpoint,
    )


def after(steps: int) -> Callable[[], bool]:
    """True once, at step ``steps``."""
    count = itertools.count(1)
    return lambda: next(count) == steps


def same(a: TrainState, b: TrainState) -> None:
    """Assert that weights, averages, moments and best weights are equal to the bit."""
    for mine, its in (
        (a.unwrapped.state_dict(), b.unwrapped.state_dict()),
        (a.model_ema and a.model_ema.state_dict(), b.model_ema and b.model_ema.state_dict()),
        (optimizer_tensors(a.optimizer), optimizer_tensors(b.optimizer)),
        (a.best_weights, b.best_weights),
    ):
        assert mine
        assert its
        assert mine.keys() == its.keys()
        for name, tensor in mine.items():
            assert torch.equal(tensor, its[name]), name
    assert a.lr_scheduler.state_dict()["_step_count"] == b.lr_scheduler.state_dict()["_step_count"]


def without_clock(progress: TrainingPosition) -> list[EpochRecord]:
    """The history without the fields that depend on the clock."""
    return [dataclasses.replace(record, images_per_s=0.0, seconds=0.0) for record in progress.history]


@pytest.fixture(scope="module")
def whole() -> tuple[TrainState, TrainingPosition]:
    train_state, progress = new_train_state(), TrainingPosition()
    run(train_state, progress)
    return train_state, progress


@pytest.mark.parametrize("cut", [1, STEPS - 1, STEPS, STEPS + 3, 3 * STEPS - 1])
def test_a_training_killed_at_any_step_resumes_to_the_bit(
    whole: tuple[TrainState, TrainingPosition], tmp_path: Path, cut: int
) -> None:
    def save_then_die(progress: TrainingPosition) -> None:
        if progress.epoch * STEPS + progress.step == cut:
            save_checkpoint(tmp_path, first, progress, VariantConfig(name="v"), LABELS)
            raise Killed

    first = new_train_state()
    with pytest.raises(Killed):
        run(first, TrainingPosition(), save_then_die, after(cut))
    second = new_train_state()
    progress = load_checkpoint(tmp_path, second, CPU)
    assert (progress.epoch, progress.step) == divmod(cut, STEPS)
    run(second, progress)
    same(whole[0], second)
    assert without_clock(progress) == without_clock(whole[1])
    assert all(record.seconds > 0 for record in progress.history)


def test_checkpoints_change_nothing(whole: tuple[TrainState, TrainingPosition]) -> None:
    train_state, progress, places = new_train_state(), TrainingPosition(), []
    run(train_state, progress, lambda progress: places.append(progress.position), lambda: True)
    same(whole[0], train_state)
    assert without_clock(progress) == without_clock(whole[1])
    assert len(places) == EPOCHS * STEPS
    assert places[:2] + places[STEPS - 2 : STEPS + 1] == [
        "epoch 1, step 1",
        "epoch 1, step 2",
        "epoch 1, step 6",
        "epoch 1",
        "epoch 2, step 1",
    ]


def test_dropout_differs_from_step_to_step_and_from_rank_to_rank() -> None:
    drawn: list[Tensor] = []

    class Draws(nn.Dropout):
        def forward(self, given: Tensor) -> Tensor:
            if self.training:
                drawn.append(super().forward(torch.ones(64)))
            return super().forward(given)

    train_state = new_train_state()
    assert isinstance(train_state.network, nn.Sequential)
    train_state.network[3] = Draws(0.3)
    run(train_state, TrainingPosition())
    assert len(drawn) == EPOCHS * STEPS
    assert len({tuple(mask.tolist()) for mask in drawn}) == len(drawn)


def test_a_loss_that_is_not_finite_makes_no_checkpoint(tmp_path: Path) -> None:
    train_state = new_train_state()
    kept: list[str] = []

    class Poison(nn.Module):
        def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
            steps.append(1)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, targets)
            return loss * float("nan") if len(steps) == 4 else loss

    steps: list[int] = []
    train_state.loss = Poison()
    due = iter([False, True, False, True])
    with pytest.raises(
        Exception, match=r"became nan at step 4; last good: the checkpoint of epoch 1, step 2\."
    ):
        run(
            train_state,
            TrainingPosition(),
            lambda progress: kept.append(progress.position),
            lambda: next(due),
        )
    assert kept == ["epoch 1, step 2"]
