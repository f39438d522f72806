"""When to checkpoint between the ends of epochs, decided once for all ranks.

Rank 0 decides, at steps that all ranks know: each time it also says at which step it will look next. It looks
about once per second, so the steps between two looks run without a word among the ranks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from canopy.config import FleetConfig
from canopy.train.loop import Progress

Reason = Literal["steps", "minutes", "notice", "stop"]
Word = tuple[int, Reason | None]
LOOK_EVERY_S = 1.0
LOOK_REMOTE_EVERY_S = 5.0
"""A request to an object store costs money and time."""
NOTICE_EVERY_S = 30.0
"""Between checkpoints while a node is about to be taken away."""


class TrainingStopped(Exception):  # noqa: N818 (it is asked for)
    """A training ends early, on request; it says where its last checkpoint stands."""


@dataclass
class CheckpointTrigger:
    """Keeps watch over one training in one process.

    Args:
        config: how far apart checkpoints may be, in minutes and in steps.
        leads: whether this is rank 0.
        stop_asked: whether the training is to end; only rank 0 asks.
        notice_given: whether a node is about to be taken away; asked by every rank at once.
        agree: what rank 0 says, on every rank.
        every_s: seconds between looks.
    """

    config: FleetConfig
    leads: bool
    stop_asked: Callable[[], bool]
    notice_given: Callable[[], bool]
    agree: Callable[[Word | None], Word | None] = lambda word: word
    every_s: float = LOOK_EVERY_S
    reason: Reason | None = None
    """Why the last look found a checkpoint due."""
    _step: int = 0
    _looked: int = 0
    _next: int = 1
    _kept: int = 0
    _noticed: bool = False
    _looked_at: float = field(default_factory=time.monotonic)
    _kept_at: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """The training loop's ``due``, called after each step."""
        self._step += 1
        if self._step < self._next:
            return False
        noticed = self.notice_given()
        word = self.agree(self._decide(noticed) if self.leads else None)
        assert word is not None
        self._next, self.reason = word
        return self.reason is not None

    def after(self, keep: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """The training loop's ``keep``, around the one that makes a checkpoint: what is due counts anew.

        It raises ``TrainingStopped`` when the checkpoint was the last one asked for.
        """

        def kept(progress: Progress) -> None:
            keep(progress)
            self._kept, self._kept_at = self._step, time.monotonic()
            if self.reason == "stop":
                raise TrainingStopped(progress.place)
            self.reason = None

        return kept

    def _decide(self, noticed: bool) -> Word:
        """The step of the next look, and whether to checkpoint now."""
        now = time.monotonic()
        reason = self._reason(now, noticed)
        # As many steps as took `every_s` of late, and not many more than the last time: paces change.
        gap, passed_s = self._step - self._looked, max(now - self._looked_at, 1e-9)
        gap = min(max(1, round(gap * self.every_s / passed_s)), 2 * gap)
        self._looked, self._looked_at, self._noticed = self._step, now, noticed
        if self.config.checkpoint_steps is not None:
            kept = self._kept if reason is None else self._step
            gap = min(gap, max(1, kept + self.config.checkpoint_steps - self._step))
        return self._step + gap, reason

    def _reason(self, now: float, noticed: bool) -> Reason | None:
        since_s, steps, minutes = (
            now - self._kept_at,
            self.config.checkpoint_steps,
            self.config.checkpoint_minutes,
        )
        if self.stop_asked():
            return "stop"
        if noticed and (not self._noticed or since_s >= NOTICE_EVERY_S):
            return "notice"
        if steps is not None and self._step - self._kept >= steps:
            return "steps"
        return "minutes" if minutes is not None and since_s >= minutes * 60 else None
