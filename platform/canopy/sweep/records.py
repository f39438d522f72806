"""Records of trials in the run directory: points that were drawn, trials that ended.

A second start of a sweep reads them: ended trials are not run again, drawn points keep their values, and the
curves of ended trials are fed to the sampler and to the scheduler.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Self

from canopy.config import FieldValues, describe_values
from canopy.errors import InputError
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import RunDir

logger = logging.getLogger(__name__)

FOCAL_KEYS = {"loss.gamma": "gamma", "loss.alpha": "alpha"}
"""Names of the focal fields in the files of former versions."""


@dataclass(frozen=True)
class TrialRecord:
    """An ended trial, as in ``trials/``."""

    values: FieldValues
    """The point of the search space: dotted field → value."""
    score: float | None
    """Validation score after the last epoch; None when the trial failed."""
    epochs: int
    """Number of completed epochs."""
    stopped_early: bool
    """Whether the scheduler stopped the trial before its last epoch."""
    error: str | None
    """Reason for the failure; None when the trial finished or was stopped early."""
    curve: tuple[float, ...] = ()
    """Score after each epoch; empty where unknown."""
    seconds: float = 0.0
    """Duration of training and evaluation."""

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object; focal points are written as in former versions."""
        return {**self.summary(), "curve": list(self.curve), "seconds": round(self.seconds, 3)}

    def summary(self) -> dict[str, Any]:
        """The record without its curve, as in ``trials.json``."""
        content: dict[str, Any] = {"values": dict(self.values)}
        if set(self.values) == set(FOCAL_KEYS):
            content = {key: self.values[name] for name, key in FOCAL_KEYS.items()}
        outcome = {"score": self.score, "epochs": self.epochs, "stopped_early": self.stopped_early}
        return {**content, **outcome, "error": self.error}

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Read a record, also one of a former version.

        Raises:
            TypeError: when ``content`` is not an object with exactly the fields of a record.
            ValueError: when a field holds a value that a record cannot have.
        """
        if not isinstance(content, dict):
            raise TypeError("no object")
        content = dict(content)
        if "values" not in content:
            missing = [key for key in FOCAL_KEYS.values() if key not in content]
            if missing:
                raise TypeError(f"no {' and no '.join(missing)}")
            content["values"] = {name: content.pop(key) for name, key in FOCAL_KEYS.items()}
        record = cls(**{**content, "curve": tuple(content.get("curve", ()))})
        record._check()
        return record

    def _check(self) -> None:
        if not isinstance(self.values, dict):
            raise TypeError("values is no object")
        if (self.score is None) != (self.error is not None):
            raise ValueError(f"score is {self.score!r} with error {self.error!r}")
        score = 0 if self.score is None else self.score
        focal = [self.values[name] for name in FOCAL_KEYS if name in self.values]
        for number in (*focal, self.epochs, score, *self.curve, self.seconds):
            if not isinstance(number, int | float) or not isfinite(number):
                raise ValueError(f"{number!r} is not a finite number")


@dataclass(frozen=True)
class TrialRecords:
    """The records of one round of trials, a JSON file per trial.

    Args:
        run_dir: the run directory.
        key: fingerprint of the round; records of another one are not read.
    """

    run_dir: RunDir
    key: str
    _cache: dict[int, TrialRecord] = field(default_factory=dict, compare=False, repr=False)

    def path(self, number: int) -> str:
        """File of the ended trial ``number``."""
        return self.run_dir.path(Stage.SWEEP, "trials", f"{self.key[:12]}-{number}.json")

    def point_path(self, number: int) -> str:
        """File of the point that was drawn for trial ``number``."""
        return self.run_dir.path(Stage.SWEEP, "points", f"{self.key[:12]}-{number}.json")

    def file(self, name: str) -> str:
        """Another file of this round."""
        return self.run_dir.path(Stage.SWEEP, "points", f"{self.key[:12]}-{name}")

    def write(self, number: int, record: TrialRecord) -> None:
        """Store the record of trial ``number``."""
        files.write_json(self.path(number), record.to_json())
        self._cache[number] = record

    def read(self, number: int) -> TrialRecord | None:
        """The record of trial ``number``; None when the trial has not ended or its file cannot be read."""
        path = self.path(number)
        if not files.exists(path):
            return None
        try:
            return TrialRecord.from_json(files.read_json(path))
        except (InputError, TypeError, ValueError) as error:
            logger.warning("unreadable record of a trial, which runs again: %s: %s", files.shown(path), error)
            return None

    def forget(self, number: int) -> None:
        """Delete the record of trial ``number``, which then runs again with the same point."""
        files.delete(self.path(number))
        self._cache.pop(number, None)

    def is_finished(self, number: int) -> bool:
        """Whether trial ``number`` has ended without an error; a failed trial runs again."""
        record = self.read(number)
        return record is not None and record.error is None

    def load(self, count: int) -> None:
        """Read the finished trials among the first ``count`` into memory, for :attr:`ended`."""
        for number in range(count):
            record = self.read(number)
            if record is not None and record.error is None:
                self._cache[number] = record

    def refresh(self, numbers: Iterable[int]) -> None:
        """Read those of ``numbers`` into memory that have ended since, failed ones too."""
        for number in numbers:
            if number not in self._cache and (record := self.read(number)) is not None:
                self._cache[number] = record

    def reload(self, numbers: Iterable[int]) -> None:
        """Read ``numbers`` into memory again, in place of what was there, failed ones too."""
        for number in numbers:
            self._cache.pop(number, None)
            self.refresh((number,))

    @property
    def ended(self) -> dict[int, TrialRecord]:
        """The records that this process has loaded or written, by number."""
        return dict(sorted(self._cache.items()))

    def write_point(self, number: int, values: FieldValues) -> None:
        """Store the point of trial ``number`` before it starts."""
        files.write_json(self.point_path(number), dict(values))

    def read_point(self, number: int) -> dict[str, Any] | None:
        """The point of trial ``number``; None when none was drawn or its file cannot be read."""
        path = self.point_path(number)
        try:
            content = files.read_json(path)
        except FileNotFoundError:
            return None
        except InputError as error:
            logger.warning("unreadable point of a trial, which is drawn again: %s", error)
            return None
        return content if isinstance(content, dict) else None


def trial_name(number: int, count: int, values: FieldValues) -> str:
    """Name of a trial on the console: ``trial 3/9 (γ 2.00, α 0.25)``."""
    return f"trial {number + 1}/{count} ({describe_values(values)})"
