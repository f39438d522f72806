"""How far a training is, in a small file that anybody may read at any time: ``progress.json``."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

from canopy.storage import files

LOCAL_EVERY_S = 1.0
REMOTE_EVERY_S = 15.0
"""Writes to an object store cost money and time."""


@dataclass
class ProgressFile:
    """One rank's word on its training, at most one write per ``LOCAL_EVERY_S`` or ``REMOTE_EVERY_S``.

    The file holds ``name``, ``rank``, ``ranks``, ``state``, ``time`` (Unix seconds of the write), ``epoch``
    (from 1), ``epochs``, ``step`` (from 1, in the epoch), ``steps``, and as soon as they are known:
    ``images_per_s`` (of this rank, in this epoch, evaluation left out), ``wait_share`` (of the epoch's time
    that went into getting batches), ``left_s``, ``kept`` and ``kept_at`` (epochs that the last checkpoint
    holds, and where it stands in words), and, of the last epoch ``scored``, its ``train_loss`` and validation
    scores.

    Args:
        path: where to write.
        name: of the unit.
        ranks: how many there are.
        rank: of this process.
        epochs: of the whole training, as far as it is known.
        steps_per_epoch: of the epochs of this phase.
    """

    path: str
    name: str
    ranks: int
    rank: int = 0
    epochs: int = 0
    steps_per_epoch: int = 0
    latest: dict[str, Any] = field(default_factory=dict)
    _begin: tuple[int, float] | None = None
    _epoch: EpochPace | None = None
    _written: float = float("-inf")

    def begin(self, epochs: int, steps_per_epoch: int) -> None:
        """A phase of the training begins: its pace is a new one."""
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self._begin = self._epoch = None

    def step(self, epoch: int, step: int, images: int, waited_s: float = 0.0) -> bool:
        """After step ``step`` (from 1) of ``epoch`` (from 0), which took ``images`` of this rank.

        Args:
            epoch: as in the training loop.
            step: as in the training loop.
            images: of this rank in the step.
            waited_s: seconds that all of this process's steps so far have spent getting batches.

        Returns:
            Whether the file was written.
        """
        done, now = epoch * self.steps_per_epoch + step, time.monotonic()
        self.latest |= {"epoch": epoch + 1, "step": step, "steps": self.steps_per_epoch}
        if self._epoch is None or self._epoch.epoch != epoch:
            self._epoch = EpochPace(epoch, now, waited_s)
        else:
            self._epoch.images += images
            self.latest |= self._epoch.rates(now, waited_s)
        if self._begin is None:
            self._begin = done, now
            return self.say("training")
        left = self.epochs * self.steps_per_epoch - done
        self.latest["left_s"] = round((now - self._begin[1]) / (done - self._begin[0]) * max(0, left), 1)
        every_s = REMOTE_EVERY_S if files.is_uri(self.path) else LOCAL_EVERY_S
        return now - self._written >= every_s and self.say("training")

    def say(self, state: str, **facts: Any) -> bool:
        """Write now; always true.

        Args:
            state: ``starting``, ``training``, ``predicting``, ``stopped`` or ``done``.
            facts: what is new.
        """
        self.latest |= facts
        self._written = time.monotonic()
        who = {"name": self.name, "rank": self.rank, "ranks": self.ranks}
        record = {**who, "state": state, "epochs": self.epochs, "time": time.time()}
        # Losing a progress report must not lose the training that it reports on.
        with contextlib.suppress(OSError, ValueError):
            files.write_json(self.path, {**record, **self.latest})
        return True


@dataclass
class EpochPace:
    """Speed within one epoch, counted from the end of its first step: start-up does not spoil it."""

    epoch: int
    since: float
    waited_before: float
    images: int = 0

    def rates(self, now: float, waited_s: float) -> dict[str, float]:
        """``images_per_s`` and ``wait_share``, up to ``now``."""
        passed_s = max(now - self.since, 1e-9)
        share = min(1.0, (waited_s - self.waited_before) / passed_s)
        return {"images_per_s": round(self.images / passed_s, 1), "wait_share": round(share, 3)}
