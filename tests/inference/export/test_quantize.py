"""Stored chips and macro-F1 loss. int8 files themselves: test_export.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from canopy.errors import RunDirError
from canopy.inference.export.quantize import ChipReader, macro_f1_loss, stored_chips
from canopy.inference.model import Model
from canopy.storage.run_dir import RunDir


def test_chips_of_training_and_val_are_read_with_their_labels(with_chips: RunDir, model: Model) -> None:
    chips = stored_chips(with_chips, model.labels.names)
    assert chips is not None
    whole_NHWC = np.load(with_chips.path("prepare", "chips.npy"))
    np.testing.assert_array_equal(chips.training_NHWC, whole_NHWC[::2])
    np.testing.assert_array_equal(chips.measured_NHWC, whole_NHWC[1::2])
    decided_NK = model.predict_decoded(chips.measured_NHWC).decisions_NK
    assert (decided_NK == chips.targets_NK).mean() > 0.9


def test_a_run_without_chips_has_none_and_other_labels_are_refused(
    finished: RunDir, with_chips: RunDir, model: Model, tmp_path: Path
) -> None:
    assert stored_chips(finished, model.labels.names) is None
    with pytest.raises(RunDirError, match="must describe the run's chips and labels"):
        stored_chips(with_chips, ("a", "b"))
    copy = RunDir(str(shutil.copytree(with_chips.root, tmp_path / "copy")))
    Path(copy.path("prepare", "chips.npy")).write_bytes(b"damaged")
    with pytest.raises(RunDirError, match="decoded chips"):
        stored_chips(copy, model.labels.names)


def test_the_loss_is_the_difference_of_macro_f1() -> None:
    targets_NK = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], np.uint8)
    worse_NK = targets_NK.copy()
    worse_NK[0, 0] = 0
    loss = macro_f1_loss(targets_NK, targets_NK, worse_NK)
    assert loss["macro_f1_float32"] == 1.0
    assert loss["macro_f1"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-6)
    assert loss["loss"] == pytest.approx(1 - (2 / 3 + 1) / 2, abs=1e-6)
    assert loss["decisions_changed"] == 1 / 8


def test_the_quantizer_gets_every_chip_once() -> None:
    chips_NHWC = np.arange(40 * 4 * 4 * 3, dtype=np.int64).astype(np.uint8).reshape(40, 4, 4, 3)
    reader, parts = ChipReader(chips_NHWC), []
    while (batch := reader.get_next()) is not None:
        parts.append(batch["images"])
    np.testing.assert_array_equal(np.concatenate(parts), chips_NHWC)
    assert len(parts) == 3
