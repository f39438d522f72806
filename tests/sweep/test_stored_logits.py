from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from canopy.errors import StageError
from canopy.storage.run_dir import RunDir
from canopy.sweep.records import TrialRecord, TrialRecords
from canopy.sweep.stored_logits import logits_path, read_logits, read_probs, write_logits


def test_logits_round_trip(tmp_path: Path) -> None:
    logits_NK = np.arange(6, dtype=np.float32).reshape(3, 2)
    path = str(tmp_path / "logits.npy")
    write_logits(path, logits_NK)
    assert np.array_equal(read_logits(path), logits_NK)
    Path(path).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"pickle|magic"):
        read_logits(path)


def test_a_trial_whose_logits_cannot_be_read_runs_again(tmp_path: Path) -> None:
    records = TrialRecords(RunDir(str(tmp_path)), "0123456789abcdef")
    records.write(3, TrialRecord({}, 0.5, 4, False, None))
    write_logits(logits_path(records, 3), np.zeros((2, 3), np.float32))
    assert np.array_equal(read_probs(records, 3), np.full((2, 3), 0.5, np.float32))
    Path(logits_path(records, 3)).unlink()
    with pytest.raises(StageError, match=r"3\.npy cannot be read .*Start again: its run is repeated"):
        read_probs(records, 3)
    assert records.read(3) is None
