"""Settings of the networks in batch inference: what they may change, and what is kept with the output."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import canopy
from canopy.errors import ConfigError
from canopy.inference.autotune import (
    keep_execution,
    kept_execution,
    predictions_agree,
    same_within_noise,
    timed_step,
    tuned_execution,
)
from canopy.inference.model import Model
from canopy.inference.shards import BatchJob, ShardDirectory
from canopy.models.execution import Execution
from canopy.storage.run_dir import RunDir


@pytest.fixture
def model(finished: RunDir) -> Model:
    return canopy.load(finished.root, device="cpu", members=["resnet"])


def test_settings_change_predictions_by_rounding_alone(model: Model, images_NHWC: NDArray[np.uint8]) -> None:
    expected = model.predict(images_NHWC).probs_NK
    for setting in (Execution(1, 2), Execution(1, 32, "contiguous"), Execution(2, 3, "contiguous")):
        other = replace(model, networks=model.networks.executed(setting))
        assert other.networks.batch_size == setting.batch_size
        np.testing.assert_allclose(other.predict(images_NHWC).probs_NK, expected, atol=1e-5)


def test_settings_are_chosen_by_timed_steps(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANOPY_CACHE", str(tmp_path))
    monkeypatch.setattr("canopy.models.autotune.MOST_ROUNDS", 1)
    monkeypatch.setattr("canopy.inference.autotune.CPU_BATCHES", (8, 32))
    chosen = tuned_execution(model, 1)
    assert chosen.threads == 1
    assert chosen.precision is None
    assert chosen.batch_size in {8, 32}
    assert timed_step(model.networks, model.decoder, 8)(Execution(1, 8)) > 0
    kept = list((tmp_path / "execution").iterdir())
    assert len(kept) == 1
    assert tuned_execution(model, 1) == chosen


def test_another_precision_must_leave_predictions_as_they_are(
    model: Model, images_NHWC: NDArray[np.uint8]
) -> None:
    first, same = Execution(1, 32), Execution(1, 8, "contiguous")
    many_NHWC = np.concatenate([images_NHWC] * 5)
    chips_NHWC = model.decoder.chips(list(many_NHWC))
    assert predictions_agree(model, first, same, chips_NHWC)
    assert not predictions_agree(model, first, same, chips_NHWC[:8]), "too few to tell"
    found = model.predict_decoded(chips_NHWC)
    assert same_within_noise(found, found)
    assert not same_within_noise(found, replace(found, decisions_NK=1 - found.decisions_NK))
    assert not same_within_noise(found, replace(found, probs_NK=found.probs_NK + np.float32(0.01)))


def test_the_choice_lies_beside_the_shards_until_the_job_is_removed(tmp_path: Path) -> None:
    directory = ShardDirectory(str(tmp_path / "out"), BatchJob("m", 10, "d", 32))
    directory.open("--out")
    assert kept_execution(directory) is None
    setting = Execution(2, 16, "contiguous")
    keep_execution(directory, setting)
    assert kept_execution(directory) == setting
    Path(directory.execution_path).write_text("{")
    with pytest.raises(ConfigError, match="must hold the settings of an execution"):
        kept_execution(directory)
    directory.remove()
    assert not (tmp_path / "out").exists()
