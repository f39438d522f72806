"""The state of one training in one process, as stored in ``progress.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from canopy.storage import files

TrainingState = Literal[
    "queued", "waiting", "starting", "training", "predicting", "stopped", "ending", "done", "failed"
]
"""State of a training.

``queued``: not submitted to Ray yet. ``waiting``: without a progress file yet, or before a restart that waits
for free memory. ``ending``: the workers are done, ``done.json`` is not written yet. ``stopped``: ended by a
signal.
"""
LIVE_METRICS = ("images_per_s", "wait_share", "left_s", "gpu_bytes")
"""Names of the fields that change between the ends of epochs."""


@dataclass(frozen=True)
class ProgressRecord:
    """Position, speed and scores of one training, as one rank sees them. JSON keys are the field names."""

    name: str
    """Name of the training."""
    state: TrainingState
    """See :data:`TrainingState`."""
    rank: int = 0
    """Rank of the process."""
    ranks: int = 1
    """Number of ranks."""
    epochs: int = 0
    """Planned number of epochs over all phases; 0 when it is not known yet."""
    time: float | None = None
    """Unix time of the write, in seconds; None when nothing was written."""
    epoch: int | None = None
    """Number of the current epoch, from 1."""
    step: int | None = None
    """Number of steps taken in the epoch."""
    steps: int | None = None
    """Number of steps per epoch."""
    images_per_s: float | None = None
    """Training images per second of this rank in the epoch, without evaluation."""
    wait_share: float | None = None
    """Share of the epoch's time spent on getting batches, in [0, 1]."""
    left_s: float | None = None
    """Estimated seconds until the last planned epoch ends."""
    gpu_bytes: int | None = None
    """Peak of the GPU memory allocated by this rank, in bytes."""
    scored: int | None = None
    """Number of the last evaluated epoch, to which loss and scores belong."""
    train_loss: float | None = None
    """Mean training loss of that epoch."""
    score: float | None = None
    """Validation score that selects the best epoch, in [0, 1]."""
    val_map: float | None = None
    """Mean average precision on the selection rows, in [0, 1]."""
    val_macro_f1: float | None = None
    """Macro-F1 on the selection rows, in [0, 1]."""
    kept: int | None = None
    """Number of complete epochs in the last checkpoint."""
    kept_at: str | None = None
    """Position of the last checkpoint in words, such as ``epoch 3, step 40``."""
    reason: str | None = None
    """Why the training failed, or what it waits for; one line."""

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object, without the fields that are None."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Undo :meth:`to_json`; unknown keys are ignored.

        Raises:
            ValueError: when ``value`` is not such an object.
        """
        if not isinstance(value, dict):
            raise ValueError(f"a progress record must be an object. Got: {type(value).__name__}.")
        known = {field.name: value[field.name] for field in fields(cls) if value.get(field.name) is not None}
        for key, item in known.items():
            wanted = str if key in TEXT_FIELDS else int | float
            if not isinstance(item, wanted) or isinstance(item, bool):
                raise ValueError(f"the progress record's {key} must not be a {type(item).__name__}.")
        if "name" not in known or known.get("state") not in get_args(TrainingState):
            raise ValueError("a progress record must hold a name and a known state.")
        return cls(**known)


TEXT_FIELDS = frozenset({"name", "state", "kept_at", "reason"})


def progress_file_name(rank: int) -> str:
    """Name of the progress file of a rank in the directory of its training."""
    return "progress.json" if rank == 0 else f"progress-rank{rank}.json"


def read_progress_record(path: str) -> ProgressRecord | None:
    """The record at ``path``; None without a file.

    Raises:
        OSError: when the storage fails.
        ValueError: when the file does not hold a record.
    """
    try:
        return ProgressRecord.from_json(files.read_json(path))
    except FileNotFoundError:
        return None
