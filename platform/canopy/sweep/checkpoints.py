"""Checkpoints of a trial in the run directory: one file, replaced after each epoch.

A trial that is killed, with its sweep or alone, continues after its last completed epoch.
"""

from __future__ import annotations

import io
import logging
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from canopy.config import VariantConfig
from canopy.errors import RunDirError
from canopy.labels import LabelSet
from canopy.storage import files
from canopy.train.checkpoint.state_io import load_checkpoint, read_progress, save_checkpoint
from canopy.train.loop import TrainState
from canopy.train.training_records import TrainingPosition

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialCheckpoint:
    """The newest checkpoint of one trial: the files of ``canopy.train.checkpoint.state_io`` in one archive.

    Args:
        path: file of the archive.
    """

    path: str

    def save(
        self, train_state: TrainState, progress: TrainingPosition, variant: VariantConfig, labels: LabelSet
    ) -> None:
        """Replace the checkpoint; a reader sees the former one or this one."""
        archive = io.BytesIO()
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder), train_state, progress, variant, labels)
            with tarfile.open(fileobj=archive, mode="w") as tar:
                tar.add(folder, arcname=".")
        files.write_bytes(self.path, archive.getvalue())

    def unpack(self, folder: Path) -> TrainingPosition | None:
        """Unpack the checkpoint into ``folder``; its position, None without one or when it is damaged."""
        if not files.exists(self.path):
            return None
        try:
            with tarfile.open(fileobj=io.BytesIO(files.read_bytes(self.path))) as tar:
                tar.extractall(folder, filter="data")
            return read_progress(folder)
        except (tarfile.TarError, EOFError, RunDirError) as error:
            shown = files.shown(self.path)
            logger.warning("unreadable checkpoint of a trial, which starts again: %s: %s", shown, error)
            return None

    @staticmethod
    def load(folder: Path, train_state: TrainState, device: torch.device) -> TrainingPosition:
        """Load an unpacked checkpoint into ``train_state``; its position."""
        return load_checkpoint(folder, train_state, device)

    def remove(self) -> None:
        """Remove the checkpoint, if there is one."""
        files.delete(self.path)
