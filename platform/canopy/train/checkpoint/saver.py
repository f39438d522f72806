"""Saves checkpoints through Ray Train; failures of the storage become one error."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.train import CheckpointConfig, ControllerError
from safetensors import SafetensorError

from canopy.errors import FourPartError, RunDirError, StorageError
from canopy.labels import LabelSet
from canopy.train.checkpoint.state_io import save_checkpoint
from canopy.train.loop import TrainState
from canopy.train.training_phase import DistributedContext
from canopy.train.training_records import TrainingPosition
from canopy.train.training_run import TrainingRun

WITHIN_EPOCH_SCORE = -1.0
"""Score reported with a checkpoint within an epoch: below every validation score."""
PERMANENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
"""Errors of the operating system that a restart meets again."""
STORAGE_REMEDY = "Free space there or restore access to it, then start again."


def checkpoint_config(keep_checkpoints: int) -> CheckpointConfig:
    """Which checkpoints Ray Train keeps: the newest, and the best ones if ``keep_checkpoints`` is above 1.

    A checkpoint within an epoch has no validation score. It is removed as soon as it is not the newest any
    more and ``keep_checkpoints`` others exist.
    """
    by = "score" if keep_checkpoints > 1 else None
    return CheckpointConfig(num_to_keep=keep_checkpoints, checkpoint_score_attribute=by)


@dataclass
class CheckpointSaver:
    """Saves the checkpoints of one training.

    Args:
        training_run: the training.
        labels: label set of its catalogue.
        dist_context: this process; rank 0 writes.
        storage: address of Ray Train's storage without credentials; used in error messages.
        last_checkpoint: position of the last checkpoint in words, empty without one; used in error messages.
    """

    training_run: TrainingRun
    labels: LabelSet
    dist_context: DistributedContext
    storage: str
    last_checkpoint: str

    def save(self, train_state: TrainState, progress: TrainingPosition) -> None:
        """Report to Ray Train, with a checkpoint from rank 0. All ranks must call it; it waits for all.

        Raises:
            StorageError: when the checkpoint cannot be written; the previous one stays.
            RunDirError: likewise, when the storage does not exist or may not be written to.
        """
        import ray.train

        metrics = report_metrics(progress)
        if self.dist_context.rank != 0:
            ray.train.report(metrics)
        else:
            with tempfile.TemporaryDirectory() as directory:
                with self._write_errors(progress, directory):
                    save_checkpoint(
                        Path(directory), train_state, progress, self.training_run.variant, self.labels
                    )
                with self._write_errors(progress, self.storage):
                    ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(directory))
        self.last_checkpoint = progress.position

    @contextlib.contextmanager
    def _write_errors(self, progress: TrainingPosition, where: str) -> Iterator[None]:
        """Turn an error of the disk, of the store or of Ray Train's storage into one line."""
        try:
            yield
        except (OSError, SafetensorError, RuntimeError) as error:
            # Ray Train reports missing storage as a plain RuntimeError; only its text identifies it.
            if isinstance(error, RuntimeError) and "cluster storage" not in str(error):
                raise
            thing = f"variant {self.training_run.name}: the checkpoint of {progress.position}"
            remedy = f"Last good: {self.last_checkpoint or 'none yet'}. {STORAGE_REMEDY}"
            raise storage_error(thing, where, error, remedy) from error


@contextlib.contextmanager
def storage_errors(name: str, storage: str) -> Iterator[None]:
    """Turn an error of Ray Train's controller, when it writes its list of checkpoints, into one line.

    Args:
        name: name of the training.
        storage: address of Ray Train's storage without credentials.

    Raises:
        StorageError: when the list could not be written; the checkpoints that it named before stay.
        RunDirError: likewise, when the storage does not exist or may not be written to.
    """
    try:
        yield
    except (OSError, ControllerError) as error:
        cause = error.controller_failure if isinstance(error, ControllerError) else error
        if not isinstance(cause, OSError):
            raise
        remedy = f"The checkpoints listed before are good. {STORAGE_REMEDY}"
        raise storage_error(f"variant {name}: the list of checkpoints", storage, cause, remedy) from cause


def storage_error(thing: str, where: str, error: Exception, remedy: str) -> FourPartError:
    """The error of a file that cannot be written.

    Args:
        thing: the file, as the user knows it.
        where: address that refused it.
        error: error of the operating system or of the store.
        remedy: what to do, as sentences.
    """
    kind = RunDirError if isinstance(error, PERMANENT) else StorageError
    return kind(thing, f"must be writable to {where}", first_line(error), remedy)


def first_line(error: Exception) -> str:
    """The message of the operating system, or the first line of the store's."""
    number = getattr(error, "errno", None)
    if number:
        return os.strerror(number)
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def report_metrics(progress: TrainingPosition) -> dict[str, Any]:
    """Metrics for Ray Train with a checkpoint: the epoch's record, or the position within an epoch."""
    if progress.step:
        return {"epoch": progress.epoch, "step": progress.step, "score": WITHIN_EPOCH_SCORE}
    return progress.history[-1].to_json()
