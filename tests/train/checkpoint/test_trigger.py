"""When checkpoints are made within an epoch, with a clock that the tests move."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from canopy.config import FleetConfig
from canopy.train.checkpoint import trigger
from canopy.train.checkpoint.trigger import CheckpointTrigger, TrainingStopped, TriggerDecision
from canopy.train.training_records import TrainingPosition


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(trigger, "time", clock)
    return clock


def run_steps(
    clock: Clock,
    config: FleetConfig,
    seconds_per_step: float,
    steps: int,
    stop: Callable[[], bool] = lambda: False,
    preemption: Callable[[], bool] = lambda: False,
) -> tuple[list[float], int]:
    """Seconds at which checkpoints were due, and the number of rank 0's broadcasts."""
    broadcasts: list[TriggerDecision | None] = []

    def broadcast(decision: TriggerDecision | None) -> TriggerDecision | None:
        broadcasts.append(decision)
        return decision

    checkpoint_trigger = CheckpointTrigger(
        config, True, stop, preemption, broadcast, _decision_time=clock.now, _checkpoint_time=clock.now
    )
    start, found = clock.now, []
    save = checkpoint_trigger.wrap_save(lambda progress: None)
    for _ in range(steps):
        clock.now += seconds_per_step
        if checkpoint_trigger.should_checkpoint():
            found.append(round(clock.now - start, 3))
            save(TrainingPosition())
    return found, len(broadcasts)


def test_minutes_and_steps_decide_and_ranks_communicate_about_once_per_second(clock: Clock) -> None:
    by_minutes, broadcasts = run_steps(clock, FleetConfig(checkpoint_minutes=0.5), 0.01, 10_000)
    assert len(by_minutes) == 3
    for n, seconds in enumerate(by_minutes, start=1):
        assert 30 * n <= seconds <= 31.1 * n
    assert 80 <= broadcasts <= 120  # in 100 seconds
    by_steps, _ = run_steps(clock, FleetConfig(checkpoint_minutes=None, checkpoint_steps=30), 0.01, 100)
    assert by_steps == pytest.approx([0.3, 0.6, 0.9])
    assert run_steps(clock, FleetConfig(checkpoint_minutes=None), 0.01, 1000)[0] == []
    slow, _ = run_steps(
        clock, FleetConfig(checkpoint_minutes=1), 20, 10
    )  # a step takes longer than the interval
    assert slow == [60, 120, 180]


def test_a_preemption_causes_a_checkpoint_at_once_and_again_while_it_lasts(clock: Clock) -> None:
    begin = clock.now
    announced = lambda: 50 <= clock.now - begin < 100  # noqa: E731
    found, _ = run_steps(clock, FleetConfig(), 0.1, 1500, preemption=announced)
    assert [round(seconds) for seconds in found] == pytest.approx([51, 81], abs=1)


def test_a_stop_request_ends_the_training_after_its_checkpoint(clock: Clock) -> None:
    begin = clock.now
    with pytest.raises(TrainingStopped):
        run_steps(clock, FleetConfig(), 0.1, 1500, stop=lambda: clock.now - begin > 20)
    assert 20 < clock.now - begin < 21.5


def test_other_ranks_follow_rank_0() -> None:
    decisions: list[TriggerDecision] = []

    def send(decision: TriggerDecision | None) -> TriggerDecision | None:
        assert decision is not None
        decisions.append(decision)
        return decision

    def receive(decision: TriggerDecision | None) -> TriggerDecision:
        assert decision is None, "only rank 0 decides"
        return decisions[-1]

    config = FleetConfig(checkpoint_steps=5)
    leader = CheckpointTrigger(config, True, lambda: False, lambda: False, send)
    follower = CheckpointTrigger(
        FleetConfig(), False, lambda: pytest.fail("only rank 0 reads the stop file"), lambda: False, receive
    )
    saves = [rank.wrap_save(lambda progress: None) for rank in (leader, follower)]
    for step in range(1, 41):
        answers = leader.should_checkpoint(), follower.should_checkpoint()
        assert answers == ((step % 5 == 0),) * 2
        if answers[0]:
            for save in saves:
                save(TrainingPosition())
