"""The training of one trial, in the trial's own process."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray import tune
from torch import nn

from canopy.config import (
    DistillConfig,
    FieldValues,
    FinetuneConfig,
    FleetConfig,
    ResourcesConfig,
    SweepConfig,
    VariantConfig,
    derive,
    describe_values,
    set_fields,
)
from canopy.data.catalogue import Catalogue
from canopy.data.loading.chip_source import ChipSource
from canopy.models.weights_source import with_absolute_weights
from canopy.runtime.logging import configure_logging, remote_log_context
from canopy.runtime.malloc import keep_freed_memory
from canopy.sweep.checkpoints import TrialCheckpoint
from canopy.sweep.equal_cost import EqualCost
from canopy.sweep.objective import Objective
from canopy.sweep.records import TrialRecords
from canopy.sweep.schedulers import REPLAYED, TIME
from canopy.sweep.stored_logits import logits_path, write_logits
from canopy.train.fleet.resources import worker_resources
from canopy.train.logits import logits_to_probs, selection_scores
from canopy.train.loop import TrainState, train
from canopy.train.phase_plan import training_phases
from canopy.train.training_phase import DistributedContext, TrainingPhase
from canopy.train.training_records import TrainingPosition, ValidationScores
from canopy.train.training_run import sweep_rows


@dataclass(frozen=True)
class TrialContext:
    """The inputs that all trials of a round share.

    Args:
        variant: the swept variant as :func:`trial_variant` or :func:`final_variant` changes it.
        settings: the sweep's config.
        chips: decoded images.
        records: records of the round; checkpoints lie beside them.
        objective: what epochs are scored by; None: the variant's ``optim.select_by``.
        final: whether trials train on all rows and keep the logits of their best epoch.
        keep_logits: whether trials of the search keep the logits of their last epoch.
        unstopped: whether no trial is stopped early.
        equal_cost: the rule for the epochs of a trial; None: the same number for all.
        fleet: limits of Ray Train, for trials of several workers.
        log_fields: the driver's log context (:func:`canopy.runtime.logging.current_context`).
    """

    variant: VariantConfig
    settings: SweepConfig
    chips: ChipSource
    records: TrialRecords
    objective: Objective | None = None
    final: bool = False
    keep_logits: bool = False
    unstopped: bool = False
    equal_cost: EqualCost | None = None
    fleet: FleetConfig = field(default_factory=FleetConfig)
    log_fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Number of epochs of a trial that is not stopped."""
        return self.variant.optim.epochs + self.variant.optim.rebalance_epochs

    def variant_of(self, values: FieldValues) -> VariantConfig:
        """The variant with a trial's values, and its number of epochs at equal cost."""
        variant = set_fields(self.variant, values)
        if self.equal_cost is None:
            return variant
        return set_fields(variant, {"optim.epochs": self.epochs_of(values)})

    def epochs_of(self, values: FieldValues) -> int:
        """Number of epochs of a trial with ``values`` that is not stopped."""
        if self.equal_cost is not None:
            return self.equal_cost.epochs(values, self.epochs)
        own = set_fields(self.variant, values).optim
        return own.epochs + own.rebalance_epochs

    def reference_epochs(self, values: FieldValues, epochs: int) -> float:
        """The epochs of the untouched variant that cost as much as ``epochs`` with ``values``."""
        return epochs * self.epochs / self.epochs_of(values)

    def checkpoint(self, number: int) -> TrialCheckpoint:
        """The checkpoint of trial ``number``."""
        return TrialCheckpoint(self.records.file(f"{number}.tar"))

    def logits_path(self, number: int) -> str:
        """File of the logits of trial ``number``."""
        return logits_path(self.records, number)


def trial_variant(reference: VariantConfig, settings: SweepConfig) -> VariantConfig:
    """The swept variant as trials train it: one phase of ``settings.epochs`` epochs."""
    optim = derive(reference.optim, epochs=settings.epochs, rebalance_epochs=0, patience=None)
    # Fine-tuning in phases would make the few epochs of a trial incomparable. LoRA stays: its best learning
    # rate is not that of a training of all weights.
    own = reference.finetune
    plain = FinetuneConfig(batch_norm=own.batch_norm, lora_rank=own.lora_rank, lora_alpha=own.lora_alpha)
    scale = trial_scale(reference, settings)
    return with_absolute_weights(
        derive(reference, optim=optim, scale=scale, finetune=plain, distill=DistillConfig())
    )


def final_variant(reference: VariantConfig, settings: SweepConfig) -> VariantConfig:
    """The swept variant as finalists are trained: at full length, in both phases."""
    optim = derive(reference.optim, patience=None)
    scale = trial_scale(reference, settings)
    return with_absolute_weights(derive(reference, optim=optim, scale=scale, distill=DistillConfig()))


def trial_scale(variant: VariantConfig, settings: SweepConfig) -> ResourcesConfig:
    """The resources of a trial: one worker, or as many as ``variant`` has at most."""
    workers = variant.scale.workers if settings.workers == "variant" else 1
    return derive(variant.scale, workers=workers, min_workers=None)


def trial_resources(scale: ResourcesConfig) -> dict[str, float]:
    """The resources of a trial: those of one worker, with at most one GPU."""
    resources = worker_resources(scale)
    return resources | ({"GPU": min(1.0, resources["GPU"])} if "GPU" in resources else {})


def search_parameters(number: int, values: FieldValues) -> dict[str, Any]:
    """Ray Tune's parameters of a trial; the values are one text, since Tune takes dots for nesting."""
    return {"number": number, "values": json.dumps(dict(values))}


def run_trial(search: dict[str, Any], context: TrialContext, catalogue: Catalogue) -> None:
    """Train one point of the search space in this process and report each epoch's scores to Ray Tune.

    Args:
        search: Ray Tune's parameters of the trial, from :func:`search_parameters`.
        context: inputs that all trials share.
        catalogue: the run's catalogue.
    """
    values = json.loads(search["values"])
    variant = context.variant_of(values)

    def report(result: dict[str, Any]) -> None:
        tune.report({**result, TIME: context.reference_epochs(values, result["epoch"])})

    with trial_process(variant, context):
        place = TrialPlace(search["number"], one_process(variant), lambda network: network, report)
        train_trial(variant, f"sweep {describe_values(values)}", place, context, catalogue)


@contextmanager
def trial_process(variant: VariantConfig, context: TrialContext) -> Iterator[None]:
    """Set up this process for training a trial, and its log context for the block."""
    torch.set_num_threads(variant.scale.threads_per_worker)
    keep_freed_memory()
    configure_logging("worker")
    with remote_log_context({**context.log_fields, "variant": variant.name}):
        yield


@dataclass(frozen=True)
class TrialPlace:
    """One process of a trial.

    Args:
        number: number of the trial.
        dist_context: this process; rank 0 writes.
        wrap: wraps the network for training, in DDP where there are other ranks.
        report: takes the scores of each epoch, those of a former start first.
    """

    number: int
    dist_context: DistributedContext
    wrap: Callable[[nn.Module], nn.Module]
    report: Callable[[dict[str, Any]], None]

    @property
    def writes(self) -> bool:
        """Whether this process writes the trial's files."""
        return self.dist_context.rank == 0


def one_process(variant: VariantConfig) -> DistributedContext:
    """The place of the only process of a trial."""
    return DistributedContext(0, 1, torch.device("cuda" if variant.scale.gpus_per_worker else "cpu"))


def train_trial(
    variant: VariantConfig, name: str, place: TrialPlace, context: TrialContext, catalogue: Catalogue
) -> None:
    """Train ``variant`` from its checkpoint, if there is one, to its end; every rank calls it.

    Args:
        variant: the variant with the point's values.
        name: name of the trial in error messages.
        place: this process.
        context: inputs that all trials share.
        catalogue: the run's catalogue.
    """
    rows_N = catalogue.rows("train") if context.final else sweep_rows(catalogue, context.settings)
    rows = rows_N, catalogue.rows("val", fold=0 if catalogue.folds == 1 else None)
    checkpoint, train_state = context.checkpoint(place.number), None
    with tempfile.TemporaryDirectory() as unpacked:
        found = checkpoint.unpack(Path(unpacked))
        progress = found or TrainingPosition()
        for record in progress.history:
            place.report({**record.to_json(), REPLAYED: True})
        for position, planned in enumerate(training_phases(variant), start=1):
            phase = TrainingPhase(
                planned.variant,
                catalogue,
                context.chips,
                place.dist_context,
                *rows,
                kind=planned.kind,
            )
            train_state = phase.train_state(place.wrap, previous=train_state)
            if position < progress.phase:
                continue  # an earlier start completed it
            if found is not None and position == progress.phase:
                checkpoint.load(Path(unpacked), train_state, place.dist_context.device)
            elif position == 1:
                phase.before_first_step(train_state)
            progress.start_phase(position)
            save = _save(place, phase, train_state, context)
            train_phase(phase, train_state, progress, name, save, context)
            phase.after_last_step(train_state, progress)
    assert train_state is not None
    if context.final:
        logits_NK = best_logits(phase, train_state)  # by all ranks together
        if place.writes:
            write_logits(context.logits_path(place.number), logits_NK)


def _save(
    place: TrialPlace, phase: TrainingPhase, train_state: TrainState, context: TrialContext
) -> Callable[[TrainingPosition], None]:
    """The training loop's ``save_checkpoint``: keeps the epoch, then reports it.

    The logits of the last epoch are kept first: once it is reported, Ray Tune may end the process.
    """
    checkpoint = context.checkpoint(place.number)

    def save(progress: TrainingPosition) -> None:
        if context.keep_logits and progress.epoch == phase.variant.optim.epochs:
            logits_NK = phase.logits(train_state.eval_model, phase.selection_rows)
            if place.writes:
                write_logits(context.logits_path(place.number), logits_NK)
        if place.writes:
            checkpoint.save(train_state, progress, phase.variant, phase.catalogue.labels)
        place.report(progress.history[-1].to_json())

    return save


def train_phase(
    phase: TrainingPhase,
    train_state: TrainState,
    progress: TrainingPosition,
    name: str,
    save_checkpoint: Callable[[TrainingPosition], None],
    context: TrialContext,
) -> None:
    """Train one phase from ``progress`` to its end."""
    steps = phase.batch_sampler.steps_per_epoch

    targets_NK, objective = phase.catalogue.targets_NK[phase.selection_rows], context.objective

    def evaluate(network: nn.Module) -> ValidationScores:
        logits_NK = phase.logits(network, phase.selection_rows, cache=True)
        scores = selection_scores(targets_NK, logits_NK, phase.variant.optim.select_by)
        if objective is None or context.final:
            return scores
        if objective.name == "map":
            return replace(scores, score=scores.val_map)
        return replace(scores, score=objective.value(targets_NK, logits_to_probs(logits_NK)))

    train(
        train_state,
        phase.batches(progress.phase_epoch * steps + progress.step),
        steps,
        phase.variant.optim,
        progress,
        evaluate=evaluate,
        save_checkpoint=save_checkpoint,
        on_step_end=lambda *_: None,
        name=name,
        seed=phase.variant.seed * (1000 if context.final else 1) + phase.dist_context.rank,
    )


def best_logits(phase: TrainingPhase, train_state: TrainState) -> NDArray[np.float32]:
    """Logits (N, K) of the best epoch's weights on the validation rows."""
    model = train_state.eval_model
    model.load_state_dict(train_state.best_weights)
    return phase.logits(model, phase.selection_rows)
