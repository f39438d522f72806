"""A run directory whose config changes back and forth, with a kill in between."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.clusters import PATIENCE_S
from tests.support import end_job, start_job, wait_until
from tests.train.checkpoint.test_saver import arguments, experiment

from canopy.config import Experiment, derive

pytestmark = pytest.mark.slow


def with_lr(config: Experiment, lr: float) -> Experiment:
    """The experiment with another learning rate for its only variant."""
    (variant,) = config.variants
    return derive(config, variants=(derive(variant, optim=derive(variant.optim, lr=lr)),))


def test_a_config_killed_after_its_weights_were_written_leaves_nothing_to_the_former_one(
    tmp_path: Path,
) -> None:
    first = experiment(2)
    second, run, log = with_lr(first, 0.02), tmp_path / "run", tmp_path / "log"
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": "local"}

    def finish(name: str) -> None:
        job = start_job(name, *arguments(first, run, tmp_path), env=env, log=log)
        assert job.wait(timeout=PATIENCE_S) == 0, log.read_text()

    finish("prepare")
    finish("train")
    folder = run / "train" / "resnet" / "fold0"
    weights, probabilities = (folder / "weights.safetensors", folder / "test.parquet")
    expected = weights.read_bytes(), probabilities.read_bytes()

    job = start_job("train", *arguments(second, run, tmp_path), env=env, log=log)
    try:
        wait_until("other weights", lambda: weights.read_bytes() != expected[0], job, log, PATIENCE_S)
    finally:
        end_job(job)
    assert not (folder / "done.json").exists(), "it was killed too late for this test"

    finish("train")
    assert (folder / "done.json").exists()
    assert (weights.read_bytes(), probabilities.read_bytes()) == expected
