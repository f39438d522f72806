"""The files that a finished training leaves in its directory: weights, predictions, records."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save

from canopy.data.catalogue import Catalogue
from canopy.models.lora import merge_lora
from canopy.models.network import MultiLabelNetwork
from canopy.models.weights import copy_weights
from canopy.predictions.io import Predictions, write_predictions
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.logits import logits_to_probs
from canopy.train.loop import TrainState
from canopy.train.training_phase import TrainingPhase
from canopy.train.training_records import TrainingPosition, TrainingSummary
from canopy.train.training_run import TrainingRun

SUMMARY = "facts.json"
"""File with the :class:`canopy.train.training_records.TrainingSummary`."""
OUTPUTS = ("weights.safetensors", "config.json", "labels.json", "history.json", "bad_images.json")
"""Files that later stages need, in addition to the predictions."""


def write_outputs(
    training_run: TrainingRun,
    run_dir: RunDir,
    phase: TrainingPhase,
    train_state: TrainState,
    progress: TrainingPosition,
    start_time: float,
    resumed: bool,
) -> None:
    """Predict with the best weights and write all outputs. Every rank must call it; rank 0 writes.

    Args:
        training_run: the training.
        run_dir: the run directory.
        phase: its last phase.
        train_state: the trained network; its last weights are replaced by the best ones.
        progress: the history of the training.
        start_time: Unix time of this start in seconds.
        resumed: whether this start resumed from a checkpoint.
    """
    model = train_state.eval_model
    model.load_state_dict(train_state.best_weights)
    if merge_lora(model):
        train_state.best_weights = copy_weights(model)
    parts = training_run.scored_rows(phase.catalogue)
    all_rows = np.concatenate(list(parts.values()))
    logits_NK = phase.logits(model, all_rows, tta=training_run.variant.tta)
    if phase.dist_context.rank != 0:
        return
    directory, start = training_run.directory, 0
    for name, rows_N in parts.items():
        predictions = make_predictions(
            phase.catalogue, rows_N, logits_NK[start : start + len(rows_N)], training_run.config_hash
        )
        write_predictions(run_dir.path(directory, f"{name}.parquet"), predictions)
        start += len(rows_N)
    assert isinstance(model, MultiLabelNetwork)
    weights = save(train_state.best_weights, model.weights_metadata)
    files.write_bytes(run_dir.path(directory, "weights.safetensors"), weights)
    files.write_json(run_dir.path(directory, "config.json"), training_run.variant.model_dump(mode="json"))
    files.write_json(run_dir.path(directory, "labels.json"), list(phase.catalogue.labels.names))
    files.write_json(
        run_dir.path(directory, "history.json"), [record.to_json() for record in progress.history]
    )
    phase.unreadable.write(run_dir.path(directory, "bad_images.json"), phase.catalogue.ids)
    summary = TrainingSummary(
        start=start_time,
        resumed=resumed,
        end=time.time(),
        epochs=progress.epoch,
        best_epoch=progress.best_epoch,
        images_per_s=float(np.median([record.images_per_s for record in progress.history])),
        bad_images=len(phase.unreadable.reasons),
    )
    files.write_json(run_dir.path(directory, SUMMARY), summary.to_json())


def output_names(training_run: TrainingRun, run_dir: RunDir) -> list[str]:
    """Names of the outputs of a finished training in its directory.

    A split without rows has no predictions, and the predictions of held-out rows belong to cross-validation
    only: a directory may hold such a file from an earlier config.
    """
    predictions = ["val.parquet", "test.parquet", *(["heldout.parquet"] if training_run.folds > 1 else [])]
    present = files.list_files(run_dir.path(training_run.directory))
    return [*OUTPUTS, *(name for name in predictions if name in present)]


def make_predictions(
    catalogue: Catalogue, rows_N: NDArray[np.int64], logits_NK: NDArray[np.float32], config_hash: str
) -> Predictions:
    """Logits of some rows of the catalogue as predictions.

    Args:
        catalogue: the catalogue.
        rows_N: row numbers in the catalogue.
        logits_NK: a logit per row and class.
        config_hash: hash of the experiment's config.
    """
    return Predictions(
        ids=np.array(catalogue.ids)[rows_N],
        probs_NK=logits_to_probs(logits_NK),
        labels=catalogue.labels,
        logits_NK=logits_NK,
        targets_NK=catalogue.targets_NK[rows_N],
        config_hash=config_hash,
    )
