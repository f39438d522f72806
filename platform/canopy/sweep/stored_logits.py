"""Logits of trials on the validation rows, a file per trial in numpy's format."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from canopy.errors import InputError, StageError
from canopy.storage import files
from canopy.sweep.records import TrialRecords
from canopy.train.logits import logits_to_probs


def logits_path(records: TrialRecords, number: int) -> str:
    """File of the logits of trial ``number``."""
    return records.file(f"{number}.npy")


def write_logits(path: str, logits_NK: NDArray[np.float32]) -> None:
    """Write logits in numpy's format."""
    content = io.BytesIO()
    np.save(content, logits_NK, allow_pickle=False)
    files.write_bytes(path, content.getvalue())


def read_logits(path: str) -> NDArray[np.float32]:
    """Read the logits of :func:`write_logits`.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is damaged.
    """
    logits_NK: NDArray[np.float32] = np.load(io.BytesIO(files.read_bytes(path)), allow_pickle=False)
    return logits_NK


def read_probs(records: TrialRecords, number: int) -> NDArray[np.float32]:
    """Probabilities (N, K) of trial ``number`` on the validation rows.

    Raises:
        StageError: when its logits cannot be read; its record is deleted, so that it runs again.
    """
    try:
        return logits_to_probs(read_logits(logits_path(records, number)))
    except (FileNotFoundError, ValueError, InputError) as error:
        records.forget(number)
        path = files.shown(logits_path(records, number))
        raise StageError(
            f"sweep: {path} cannot be read ({error}). Start again: its run is repeated."
        ) from error
