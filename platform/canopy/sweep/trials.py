"""Trials of the sweep: the training of one trial, and the records of ended trials."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Self

import torch
from ray import tune

from canopy.config import FinetuneConfig, SweepConfig, VariantConfig, derive
from canopy.data.catalogue import Catalogue
from canopy.data.loading.chip_source import ChipSource
from canopy.errors import InputError
from canopy.runtime.logging import configure_logging, remote_log_context
from canopy.runtime.malloc import keep_freed_memory
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.sweep.space import FocalParameters, sample_points
from canopy.train.loop import train
from canopy.train.training_phase import DistributedContext, TrainingPhase
from canopy.train.training_records import TrainingPosition
from canopy.train.training_run import sweep_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialRecord:
    """An ended trial, as in ``trials.json`` and in ``trials/``."""

    gamma: float
    """Focusing exponent of the focal loss."""
    alpha: float
    """Weight of positives in the focal loss, 0 to 1."""
    score: float | None
    """Validation score after the last epoch, 0 to 1; None when the trial failed."""
    epochs: int
    """Number of completed epochs."""
    stopped_early: bool
    """Whether ASHA stopped the trial before its last epoch."""
    error: str | None
    """Reason for the failure; None when the trial finished or was stopped early."""

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Read a record.

        Raises:
            TypeError: when ``content`` is not an object with exactly the fields of a record.
            ValueError: when a field holds a value that a record cannot have.
        """
        record = cls(**content)
        score = 0 if record.score is None else record.score
        if (record.score is None) != (record.error is not None):
            raise ValueError(f"score is {record.score!r} with error {record.error!r}")
        for number in (record.gamma, record.alpha, record.epochs, score):
            if not isinstance(number, int | float) or not isfinite(number):
                raise ValueError(f"{number!r} is not a finite number")
        return record


@dataclass(frozen=True)
class TrialRecords:
    """The records of a sweep's ended trials, a JSON file each: a second start runs only the missing trials.

    Args:
        run_dir: the run directory.
        key: fingerprint of the sweep; records of another sweep are not read.
    """

    run_dir: RunDir
    key: str

    def path(self, number: int) -> str:
        """File of trial ``number``."""
        return self.run_dir.path(Stage.SWEEP, "trials", f"{self.key[:12]}-{number}.json")

    def write(self, number: int, record: TrialRecord) -> None:
        """Store the record of trial ``number``."""
        files.write_json(self.path(number), record.to_json())

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

    def is_finished(self, number: int) -> bool:
        """Whether trial ``number`` has ended without an error; a failed trial runs again."""
        record = self.read(number)
        return record is not None and record.error is None


@dataclass(frozen=True)
class TrialContext:
    """The inputs that all trials of a sweep share.

    Args:
        variant: the reference variant as :func:`trial_variant` changes it.
        settings: the sweep's config.
        chips: decoded images.
        log_fields: the driver's log context (:func:`canopy.runtime.logging.current_context`).
    """

    variant: VariantConfig
    settings: SweepConfig
    chips: ChipSource
    log_fields: Mapping[str, str] = field(default_factory=dict)


def trial_variant(reference: VariantConfig, settings: SweepConfig) -> VariantConfig:
    """The reference variant as trials train it: one worker, ``settings.epochs`` epochs in one phase."""
    optim = derive(reference.optim, epochs=settings.epochs, patience=None)
    # The search compares losses; fine-tuning in phases would make its few epochs incomparable.
    plain = FinetuneConfig(batch_norm=reference.finetune.batch_norm)
    scale = derive(reference.scale, workers=1)
    return derive(reference, optim=optim, scale=scale, finetune=plain)


def with_focal_parameters(variant: VariantConfig, point: FocalParameters) -> VariantConfig:
    """``variant`` with the gamma and alpha of ``point``."""
    return derive(variant, loss=derive(variant.loss, gamma=point.gamma, alpha=point.alpha))


def run_trial(search: dict[str, int], context: TrialContext, catalogue: Catalogue) -> None:
    """Train one point of the search space in this process and report each epoch's scores to Ray Tune.

    Args:
        search: Ray Tune's parameters of the trial: the key ``number``.
        context: inputs that all trials share.
        catalogue: the run's catalogue.
    """
    point = sample_points(context.settings)[search["number"]]
    variant = with_focal_parameters(context.variant, point)
    torch.set_num_threads(variant.scale.threads_per_worker)
    keep_freed_memory()
    configure_logging("worker")
    with remote_log_context({**context.log_fields, "variant": variant.name}):
        _train_trial(variant, point, context, catalogue)


def _train_trial(
    variant: VariantConfig, point: FocalParameters, context: TrialContext, catalogue: Catalogue
) -> None:
    """Train ``variant``, the reference variant with the focal parameters of ``point``."""
    device = torch.device("cuda" if variant.scale.gpus_per_worker else "cpu")
    training_rows = sweep_rows(catalogue, context.settings)
    selection_rows = catalogue.rows("val", fold=0 if catalogue.folds == 1 else None)
    dist_context = DistributedContext(0, 1, device)
    phase = TrainingPhase(variant, catalogue, context.chips, dist_context, training_rows, selection_rows)
    train_state = phase.train_state(lambda network: network)

    def report_epoch(progress: TrainingPosition) -> None:
        tune.report(progress.history[-1].to_json())

    train(
        train_state,
        phase.batches(0),
        phase.batch_sampler.steps_per_epoch,
        variant.optim,
        TrainingPosition(),
        evaluate=phase.evaluate,
        save_checkpoint=report_epoch,
        on_step_end=lambda *_: None,
        name=f"sweep γ {point.gamma:.2f} α {point.alpha:.2f}",
        seed=variant.seed,
    )
