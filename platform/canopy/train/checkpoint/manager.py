"""Handing checkpoints to Ray Train, so that what is kept is whole whatever happens on the way.

Ray Train copies a checkpoint into a directory of its own and then names it in its list,
``checkpoint_manager_snapshot.json``; what the list does not name does not exist for it. So a copy that was
cut off is never gone on from. The list itself is written in place, though: a copy of it is kept beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs
from ray.train import CheckpointConfig, ControllerError
from safetensors import SafetensorError

from canopy.errors import StageError
from canopy.labels import LabelSet
from canopy.storage import files
from canopy.train.checkpoint.state_io import save_checkpoint
from canopy.train.fleet.controller import LIST, LIST_COPY
from canopy.train.loop import Progress, TrainState
from canopy.train.task import DistributedContext
from canopy.train.training_run import TrainingRun

UNSCORED = -1.0
"""The score of a checkpoint within an epoch: below any that validation gives."""


def checkpoint_config(keep_checkpoints: int) -> CheckpointConfig:
    """What Ray Train keeps: always the newest, and the best where more than one is wanted.

    Within an epoch there is no score: such a checkpoint goes as soon as it is not the newest any more and
    enough others are there.
    """
    by = "score" if keep_checkpoints > 1 else None
    return CheckpointConfig(num_to_keep=keep_checkpoints, checkpoint_score_attribute=by)


@dataclass
class CheckpointManager:
    """Makes the checkpoints of one training.

    Args:
        unit: the training.
        labels: of its catalogue.
        seat: of this process; rank 0 writes.
        storage: where, in words for errors.
        kept: where the last good checkpoint stands; empty when there is none.
    """

    training_run: TrainingRun
    labels: LabelSet
    dist_context: DistributedContext
    storage: str
    kept: str

    def keep(self, train_state: TrainState, progress: Progress) -> None:
        """Report to Ray Train, with a checkpoint; a barrier over the ranks.

        Raises:
            StageError: when it cannot be written; the last one stays.
        """
        import ray.train

        metrics = record_of(progress)
        if self.dist_context.rank != 0:
            ray.train.report(metrics)
        else:
            with tempfile.TemporaryDirectory() as directory:
                with self._refusals(progress, directory):
                    save_checkpoint(
                        Path(directory), train_state, progress, self.training_run.variant, self.labels
                    )
                with self._refusals(progress, self.storage):
                    ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(directory))
        self.kept = progress.place

    @contextlib.contextmanager
    def _refusals(self, progress: Progress, where: str) -> Iterator[None]:
        """Turns what a disk or a store says into one line with all that matters."""
        try:
            yield
        except (OSError, SafetensorError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "cluster storage" not in str(error):
                raise  # anything but Ray's complaint that its storage is not there
            cause = error if isinstance(error, OSError) else OSError(str(error))
            raise StageError(
                f"variant {self.training_run.name}: the checkpoint of {progress.place} could not be written to "
                f"{where}: {refusal(error)}; last good: {self.kept or 'none yet'}."
            ) from cause


@contextlib.contextmanager
def storage_refusals(name: str, storage: str) -> Iterator[None]:
    """Turns what Ray Train's controller meets when it writes to ``storage`` into one line.

    Raises:
        StageError: when it could not write; what its list named before stands.
    """
    try:
        yield
    except (OSError, ControllerError) as error:
        cause = error.controller_failure if isinstance(error, ControllerError) else error
        if not isinstance(cause, OSError):
            raise
        raise StageError(
            f"variant {name}: the list of checkpoints could not be written to {storage}: {refusal(cause)}; "
            "the checkpoints listed before are good."
        ) from cause


def refusal(error: Exception) -> str:
    """What the operating system or the store says, in one line."""
    number = getattr(error, "errno", None)
    if number:
        return os.strerror(number)
    return str(error).strip().splitlines()[0]


def record_of(progress: Progress) -> dict[str, Any]:
    """What Ray Train is told beside a checkpoint: the epoch's record, or how far it is within one."""
    if progress.step:
        return {"epoch": progress.epoch, "step": progress.step, "score": UNSCORED}
    return dict(progress.history[-1])


def clear_leftovers(filesystem: fs.FileSystem, folder: str) -> None:
    """Remove checkpoints that Ray Train's list does not name: they were cut off while they were written.

    Before the first report of a start nothing else can be on its way.

    Args:
        filesystem: of Ray Train's storage.
        folder: of one training in it.
    """
    with contextlib.suppress(OSError, ValueError):  # tidiness is not worth a training
        named = list_text(filesystem, f"{folder}/{LIST}")
        for entry in filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True)):
            if entry.is_file or not entry.base_name.startswith("checkpoint_"):
                continue
            if entry.base_name not in named:
                filesystem.delete_dir(entry.path)


def list_text(filesystem: fs.FileSystem, path: str) -> str:
    """Ray Train's list of checkpoints as it stands; empty when there is none.

    Raises:
        ValueError: when it was cut off while it was written.
    """
    if filesystem.get_file_info(path).type == fs.FileType.NotFound:
        return ""
    with filesystem.open_input_stream(path) as stream:
        text = bytes(stream.read()).decode()
    json.loads(text)
    return text


def mend_list(folder: str) -> None:
    """Before a start: put the copy in place of a list that was cut off, which would end each start.

    The copy is then the list before: what it names is removed only after the next one is whole.
    """
    path, copy = files.join(folder, LIST), files.join(folder, LIST_COPY)
    if not files.exists(path):
        return
    try:
        json.loads(files.read_bytes(path))
    except ValueError:
        if files.exists(copy):
            files.write_bytes(path, files.read_bytes(copy))
        else:  # it was the first
            filesystem, inner = files.resolve(path)
            filesystem.delete_file(inner)
