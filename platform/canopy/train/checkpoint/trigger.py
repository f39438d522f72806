"""When to checkpoint within an epoch, decided once for all ranks.

Rank 0 decides. All ranks know the step of the next decision, because each decision names it. Decisions are
about one second apart; between them the ranks do not communicate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from canopy.config import FleetConfig
from canopy.train.training_records import TrainingPosition

CheckpointReason = Literal["steps", "minutes", "preemption", "stop"]
"""Why a checkpoint is due: steps or minutes have passed, a node is about to go, the training must stop."""
POLL_EVERY_S = 1.0
POLL_REMOTE_EVERY_S = 5.0
"""Seconds between decisions when the stop file lies in an object store, where requests cost money."""
PREEMPTION_CHECKPOINT_EVERY_S = 30.0
"""Seconds between checkpoints while a node is about to be taken away."""


class TrainingStopped(Exception):  # noqa: N818 (a training ends so on request)
    """A training ends early on request; the message is the position of its last checkpoint."""


@dataclass(frozen=True)
class TriggerDecision:
    """Rank 0's decision, sent to all ranks."""

    next_step: int
    """Step of the next decision, counted from the start of this process."""
    reason: CheckpointReason | None
    """Why a checkpoint is due now; None when it is not."""


@dataclass
class CheckpointTrigger:
    """Decides after each step of one training in one process whether to checkpoint.

    Args:
        config: the interval between checkpoints, in minutes and in steps.
        is_rank_zero: whether this is rank 0.
        stop_requested: whether the training must end; only rank 0 calls it.
        preemption_announced: whether a node is about to be taken away; all ranks call it at the same step.
        broadcast: takes rank 0's decision (None on other ranks) and returns it on every rank.
        poll_every_s: seconds between two decisions.
    """

    config: FleetConfig
    is_rank_zero: bool
    stop_requested: Callable[[], bool]
    preemption_announced: Callable[[], bool]
    broadcast: Callable[[TriggerDecision | None], TriggerDecision | None] = lambda decision: decision
    poll_every_s: float = POLL_EVERY_S
    reason: CheckpointReason | None = None
    """Why the last decision was to checkpoint."""
    _step: int = 0
    _next_step: int = 1
    _decision_step: int = 0
    _decision_time: float = field(default_factory=time.monotonic)
    _checkpoint_step: int = 0
    _checkpoint_time: float = field(default_factory=time.monotonic)
    _preemption_known: bool = False

    def should_checkpoint(self) -> bool:
        """The training loop's ``should_checkpoint``, called after each step."""
        self._step += 1
        if self._step < self._next_step:
            return False
        preempted = self.preemption_announced()
        decision = self.broadcast(self._decide(preempted) if self.is_rank_zero else None)
        assert decision is not None
        self._next_step, self.reason = decision.next_step, decision.reason
        return self.reason is not None

    def wrap_save(self, save: Callable[[TrainingPosition], None]) -> Callable[[TrainingPosition], None]:
        """The training loop's ``save_checkpoint``: calls ``save``, then starts the next interval.

        The returned function raises ``TrainingStopped`` after the checkpoint that a stop request caused.
        """

        def save_and_reset(progress: TrainingPosition) -> None:
            save(progress)
            self._checkpoint_step, self._checkpoint_time = self._step, time.monotonic()
            if self.reason == "stop":
                raise TrainingStopped(progress.position)
            self.reason = None

        return save_and_reset

    def _decide(self, preempted: bool) -> TriggerDecision:
        """Decide whether to checkpoint now, and when to decide next."""
        now = time.monotonic()
        reason = self._reason(now, preempted)
        # As many steps as recently took `poll_every_s`, at most twice as many as last time: the pace may
        # change.
        gap, passed_s = self._step - self._decision_step, max(now - self._decision_time, 1e-9)
        gap = min(max(1, round(gap * self.poll_every_s / passed_s)), 2 * gap)
        self._decision_step, self._decision_time, self._preemption_known = self._step, now, preempted
        if self.config.checkpoint_steps is not None:
            last = self._checkpoint_step if reason is None else self._step
            gap = min(gap, max(1, last + self.config.checkpoint_steps - self._step))
        return TriggerDecision(self._step + gap, reason)

    def _reason(self, now: float, preempted: bool) -> CheckpointReason | None:
        steps, minutes = self.config.checkpoint_steps, self.config.checkpoint_minutes
        since_s = now - self._checkpoint_time
        if self.stop_requested():
            return "stop"
        if preempted and (not self._preemption_known or since_s >= PREEMPTION_CHECKPOINT_EVERY_S):
            return "preemption"
        if steps is not None and self._step - self._checkpoint_step >= steps:
            return "steps"
        return "minutes" if minutes is not None and since_s >= minutes * 60 else None
