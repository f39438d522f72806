"""How far a training is, in a small file that anybody may read at any time: ``progress.json``."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

from canopy import files

LOCAL_EVERY_S = 1.0
REMOTE_EVERY_S = 15.0
"""Writes to an object store cost money and time."""


@dataclass
class ProgressFile:
    """Rank 0's word on its training, at most one write per ``LOCAL_EVERY_S`` or ``REMOTE_EVERY_S``.

    Args:
        path: where to write.
        name: of the unit.
        epochs: of the whole training.
        steps_per_epoch: of every epoch.
        ranks: every rank is as fast as this one, so rates are multiplied by it.
    """

    path: str
    name: str
    epochs: int
    steps_per_epoch: int
    ranks: int
    _first: tuple[int, float] | None = None
    _images: int = 0
    _written: float = 0.0
    _latest: dict[str, Any] = field(default_factory=dict)

    def step(self, epoch: int, step: int, images: int) -> None:
        """After step ``step`` (from 1) of ``epoch`` (from 0), which took ``images`` of this rank.

        Pace is counted from the first step on, so that waiting for the first batch does not spoil it.
        """
        done, now = epoch * self.steps_per_epoch + step, time.time()
        self._latest |= {"epoch": epoch + 1, "step": step, "steps": self.steps_per_epoch}
        if self._first is None:
            self._first = done, now
            self.say("training")
            return
        self._images += images
        passed_s = max(now - self._first[1], 1e-9)
        self._latest |= {
            "images_per_s": round(self._images * self.ranks / passed_s, 1),
            "left_s": round(
                passed_s / (done - self._first[0]) * (self.epochs * self.steps_per_epoch - done), 1
            ),
        }
        every_s = REMOTE_EVERY_S if files.is_uri(self.path) else LOCAL_EVERY_S
        if now - self._written >= every_s:
            self.say("training")

    def say(self, state: str, **facts: Any) -> None:
        """Write now: ``state`` is ``starting``, ``training``, ``predicting`` or ``done``."""
        self._latest |= facts
        self._written = time.time()
        record = {"name": self.name, "state": state, "epochs": self.epochs, "time": self._written}
        # Losing a progress report must not lose the training that it reports on.
        with contextlib.suppress(OSError, ValueError):
            files.write_json(self.path, {**record, **self._latest})
