"""Position, epoch records and summary of a training, as stored in checkpoints and in the run directory."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from canopy.models.execution import Execution


@dataclass(frozen=True)
class ValidationScores:
    """Scores of one epoch on the selection rows, each in [0, 1]."""

    score: float
    """The score that selects the best epoch: one of the two below (``optim.select_by``)."""
    val_map: float
    """Mean average precision over the classes with positives."""
    val_macro_f1: float
    """Mean over the same classes of the F1 at each class's best threshold on these rows."""


@dataclass(frozen=True)
class EpochRecord:
    """One epoch, as in ``history.json``. Figures are reduced over all ranks."""

    epoch: int
    """Number of the epoch, from 1, counted over all phases."""
    phase: int
    """Number of the phase, from 1, among those of the training (probe, whole network, classifier)."""
    train_loss: float
    """Mean training loss over all steps."""
    score: float
    """See :class:`ValidationScores`."""
    val_map: float
    """See :class:`ValidationScores`."""
    val_macro_f1: float
    """See :class:`ValidationScores`."""
    images_per_s: float
    """Training images per second of all ranks together, without evaluation and checkpoints."""
    lr: float
    """Learning rate of the last parameter group after the epoch."""
    seconds: float
    """Duration of training and evaluation, without checkpoints."""

    def to_json(self) -> dict[str, float]:
        """The record as a JSON object; keys in the order of the fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Undo :meth:`to_json`."""
        return cls(**value)


@dataclass
class EpochTotals:
    """Sums over the steps of one epoch."""

    loss_sum: float = 0.0
    """Sum of the mean loss of every step on every rank."""
    steps: int = 0
    """Number of terms in ``loss_sum``: each step counts once per rank."""
    images: int = 0
    """Number of training images."""
    seconds: float = 0.0
    """Duration of the steps on this rank."""


@dataclass
class TrainingPosition:
    """Position of a training. A checkpoint restores it together with the weights and the optimizer."""

    epoch: int = 0
    """Number of completed epochs over all phases."""
    step: int = 0
    """Steps of the next epoch that the newest checkpoint holds; 0 for a checkpoint at the end of an epoch."""
    epoch_totals: EpochTotals = field(default_factory=EpochTotals)
    """Totals of these steps over all ranks."""
    phase: int = 1
    """Number of the phase, from 1, among those of the training."""
    phase_start: int = 0
    """Number of epochs completed when this phase began."""
    best_score: float = float("-inf")
    """Highest validation score of the completed epochs."""
    best_epoch: int = 0
    """Number of the epoch (from 1) that had it; 0 before the first epoch ends."""
    history: list[EpochRecord] = field(default_factory=list)
    """One record per completed epoch."""
    execution: Execution | None = None
    """How the network is executed, chosen at the start of the training; None for the defaults."""

    @property
    def phase_epoch(self) -> int:
        """Number of epochs completed in this phase."""
        return self.epoch - self.phase_start

    @property
    def position(self) -> str:
        """The newest checkpoint's position in words: ``epoch 3, step 40``; empty without a checkpoint."""
        if self.step:
            return f"epoch {self.epoch + 1}, step {self.step}"
        return f"epoch {self.epoch}" if self.epoch else ""

    def start_phase(self, phase: int) -> None:
        """Begin ``phase``; does nothing when a restart resumes within it."""
        if self.phase != phase:
            self.phase, self.phase_start = phase, self.epoch

    def to_json(self) -> dict[str, Any]:
        """The progress as a JSON object."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "so_far": asdict(self.epoch_totals),
            "phase": self.phase,
            "phase_start": self.phase_start,
            # -inf before the first epoch ends, which JSON cannot hold
            "best_score": self.best_score if math.isfinite(self.best_score) else None,
            "best_epoch": self.best_epoch,
            "history": [record.to_json() for record in self.history],
            **({} if self.execution is None else {"execution": self.execution.to_json()}),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Undo :meth:`to_json`; keys that are absent take their default."""
        known = {key: item for key, item in value.items() if key not in {"so_far", "history", "execution"}}
        if known.get("best_score", 0) is None:
            del known["best_score"]
        return cls(
            **known,
            epoch_totals=EpochTotals(**value.get("so_far", {})),
            history=[EpochRecord.from_json(record) for record in value.get("history", [])],
            execution=Execution.from_json(value["execution"], "The checkpoint's execution")
            if "execution" in value
            else None,
        )


@dataclass(frozen=True)
class TrainingSummary:
    """A finished training, as in its ``facts.json`` and ``done.json``."""

    start: float
    """Unix time at which the last start of the training began."""
    resumed: bool
    """Whether that start resumed from a checkpoint."""
    end: float
    """Unix time at which the training ended."""
    epochs: int
    """Number of completed epochs."""
    best_epoch: int
    """Number of the epoch (from 1) whose weights are stored."""
    images_per_s: float
    """Median of the epochs' training images per second, over all ranks."""
    bad_images: int
    """Number of images that could not be read."""

    def to_json(self) -> dict[str, Any]:
        """The summary as a JSON object; keys in the order of the fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Undo :meth:`to_json`."""
        return cls(**value)
