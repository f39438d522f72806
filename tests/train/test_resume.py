"""A training cut off anywhere goes on as if it had not been, to the bit; and when checkpoints are made."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from canopy.config import FleetConfig, OptimConfig, VariantConfig
from canopy.labels import LabelSet
from canopy.train.checkpoint import trigger as looking
from canopy.train.checkpoint.state_io import load_checkpoint, optimizer_tensors, save_checkpoint
from canopy.train.checkpoint.trigger import CheckpointTrigger, TrainingStopped
from canopy.train.loop import Progress, TrainState, make_train_state, train

STEPS, EPOCHS = 7, 3
CONFIG = OptimConfig(epochs=EPOCHS, lr=2e-2, ema_decay=0.9, clip_norm=1.0)
LABELS = LabelSet(("a", "b", "c"))
CPU = torch.device("cpu")


class Killed(Exception):
    pass


def new_train_state(config: OptimConfig = CONFIG) -> TrainState:
    """With everything that holds state or draws: batch norm, dropout, an average, clipping, warm-up.

    In channels-last memory order, as trainings have it: a checkpoint holds plain order.
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


def score(network: nn.Module) -> dict[str, float]:
    network.eval()
    images, targets = next(batches(10_000))
    with torch.no_grad():
        return {"score": -float(nn.functional.binary_cross_entropy_with_logits(network(images), targets))}


def run(
    train_state: TrainState,
    progress: Progress,
    keep: Callable[[Progress], None] = lambda progress: None,
    due: Callable[[], bool] = lambda: False,
) -> None:
    torch.rand(3)  # whatever was drawn before a training must not matter to it
    train(
        train_state,
        batches(progress.epoch * STEPS + progress.step),
        STEPS,
        CONFIG,
        progress,
        evaluate=score,
        keep=keep,
        tell=lambda epoch, step, images: None,
        name="v",
        seed=1,
        due=due,
    )


def after(steps: int) -> Callable[[], bool]:
    """Due once, after so many steps."""
    count = itertools.count(1)
    return lambda: next(count) == steps


def same(a: TrainState, b: TrainState) -> None:
    """Weights, averages, moments, rates, best weights: equal to the bit."""
    for mine, its in (
        (a.unwrapped.state_dict(), b.unwrapped.state_dict()),
        (a.model_ema and a.model_ema.state_dict(), b.model_ema and b.model_ema.state_dict()),
        (optimizer_tensors(a.optimizer), optimizer_tensors(b.optimizer)),
        (a.best, b.best),
    ):
        assert mine
        assert its
        assert mine.keys() == its.keys()
        for name, tensor in mine.items():
            assert torch.equal(tensor, its[name]), name
    assert a.schedule.state_dict()["_step_count"] == b.schedule.state_dict()["_step_count"]


def records(progress: Progress) -> list[dict[str, float]]:
    """The history without what the clock decides."""
    return [
        {k: v for k, v in one.items() if k not in {"images_per_s", "seconds"}} for one in progress.history
    ]


@pytest.fixture(scope="module")
def whole() -> tuple[TrainState, Progress]:
    train_state, progress = new_train_state(), Progress()
    run(train_state, progress)
    return train_state, progress


@pytest.mark.parametrize("cut", [1, STEPS - 1, STEPS, STEPS + 3, 3 * STEPS - 1])
def test_a_training_killed_at_any_step_goes_on_to_the_bit(
    whole: tuple[TrainState, Progress], tmp_path: Path, cut: int
) -> None:
    def keep_then_die(progress: Progress) -> None:
        if progress.epoch * STEPS + progress.step == cut:
            save_checkpoint(tmp_path, first, progress, VariantConfig(name="v"), LABELS)
            raise Killed

    first = new_train_state()
    with pytest.raises(Killed):
        run(first, Progress(), keep_then_die, after(cut))
    second = new_train_state()
    progress = load_checkpoint(tmp_path, second, CPU)
    assert (progress.epoch, progress.step) == divmod(cut, STEPS)
    run(second, progress)
    same(whole[0], second)
    assert records(progress) == records(whole[1])
    assert all(record["seconds"] > 0 for record in progress.history)


def test_checkpoints_change_nothing(whole: tuple[TrainState, Progress]) -> None:
    train_state, progress, places = new_train_state(), Progress(), []
    run(train_state, progress, lambda progress: places.append(progress.place), lambda: True)
    same(whole[0], train_state)
    assert records(progress) == records(whole[1])
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
    run(train_state, Progress())
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
        run(train_state, Progress(), lambda progress: kept.append(progress.place), lambda: next(due))
    assert kept == ["epoch 1, step 2"]


# When


class Clock:
    """Time that passes only when told to."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(looking, "time", clock)
    return clock


def watch(
    clock: Clock,
    config: FleetConfig,
    seconds_per_step: float,
    steps: int,
    stop: Callable[[], bool] = lambda: False,
    notice: Callable[[], bool] = lambda: False,
) -> tuple[list[float], int]:
    """Seconds at which checkpoints were due, and how often rank 0 spoke."""
    spoken: list[object] = []

    def agree(word: looking.Word | None) -> looking.Word | None:
        spoken.append(word)
        return word

    checkpoint_trigger = CheckpointTrigger(
        config, True, stop, notice, agree, _looked_at=clock.now, _kept_at=clock.now
    )
    start, found = clock.now, []
    keep = checkpoint_trigger.after(lambda progress: None)
    for _ in range(steps):
        clock.now += seconds_per_step
        if checkpoint_trigger.due():
            found.append(round(clock.now - start, 3))
            keep(Progress())
    return found, len(spoken)


def test_minutes_and_steps_decide_and_ranks_talk_about_once_per_second(clock: Clock) -> None:
    by_minutes, spoken = watch(clock, FleetConfig(checkpoint_minutes=0.5), 0.01, 10_000)
    assert len(by_minutes) == 3
    for n, at in enumerate(by_minutes, start=1):
        assert 30 * n <= at <= 31.1 * n
    assert 80 <= spoken <= 120  # of 100 seconds
    by_steps, _ = watch(clock, FleetConfig(checkpoint_minutes=None, checkpoint_steps=30), 0.01, 100)
    assert by_steps == pytest.approx([0.3, 0.6, 0.9])
    assert watch(clock, FleetConfig(checkpoint_minutes=None), 0.01, 1000)[0] == []
    slow, _ = watch(clock, FleetConfig(checkpoint_minutes=1), 20, 10)  # a step takes longer than a look
    assert slow == [60, 120, 180]


def test_a_notice_is_answered_at_once_and_again_while_it_stands(clock: Clock) -> None:
    begin = clock.now
    given = lambda: 50 <= clock.now - begin < 100  # noqa: E731
    found, _ = watch(clock, FleetConfig(), 0.1, 1500, notice=given)
    assert [round(at) for at in found] == pytest.approx([51, 81], abs=1)


def test_a_stop_ends_after_its_checkpoint(clock: Clock) -> None:
    begin = clock.now
    with pytest.raises(TrainingStopped):
        watch(clock, FleetConfig(), 0.1, 1500, stop=lambda: clock.now - begin > 20)
    assert 20 < clock.now - begin < 21.5


def test_ranks_that_do_not_lead_do_as_they_are_told() -> None:
    said: list[looking.Word] = []
    leader = CheckpointTrigger(
        FleetConfig(checkpoint_steps=5),
        True,
        lambda: False,
        lambda: False,
        lambda w: said.append(w) or w,  # type: ignore[func-returns-value, arg-type]
    )
    follower = CheckpointTrigger(
        FleetConfig(),
        False,
        lambda: pytest.fail("only rank 0 looks"),
        lambda: False,
        lambda word: said[-1] if word is None else pytest.fail("only rank 0 speaks"),
    )
    keeps = [one.after(lambda progress: None) for one in (leader, follower)]
    for step in range(1, 41):
        answers = leader.due(), follower.due()
        assert answers == ((step % 5 == 0),) * 2
        if answers[0]:
            for keep in keeps:
                keep(Progress())
