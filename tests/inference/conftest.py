"""A run directory as a finished run leaves it, made without training: random networks, a fitted ensemble."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.ensemble.worlds import FAST, LABELS, world
from tests.support import tiny_experiment

from canopy.config import Experiment, derive
from canopy.ensemble.fit import fit_ensemble
from canopy.models.network import build_model
from canopy.predictions.predictions import Predictions
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.training_run import training_run_directory


@pytest.fixture(scope="session")
def experiment() -> Experiment:
    """Two variants, one of which scores the four flips of a center crop."""
    tiny = tiny_experiment(variants=2, trials=0)
    first, second = tiny.variants
    cropped = derive(second, augment=derive(second.augment, crop=24), tta="flips")
    return derive(tiny, variants=(first, cropped))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, experiment: Experiment) -> RunDir:
    """The run directory, with the files that inference reads."""
    run_dir = RunDir(str(tmp_path_factory.mktemp("finished")))
    run_dir.store_config(experiment)
    predictions = dict(zip((v.name for v in experiment.variants), world(400).values(), strict=False))
    for seed, variant in enumerate(experiment.variants):
        torch.manual_seed(seed)
        network = build_model(variant.model, len(LABELS))
        for parameter in network.head.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        folder = Path(run_dir.path(training_run_directory(variant.name, 0)))
        folder.mkdir(parents=True)
        save_file(network.state_dict(), folder / "weights.safetensors")
        files.write_json(str(folder / "config.json"), variant.model_dump(mode="json"))
        files.write_json(str(folder / "labels.json"), list(LABELS.names))
    mean = derive(FAST, combination="mean", calibration="temperature")
    fit_ensemble(dict[str, Predictions](predictions), mean).save(run_dir.path("ensemble", "ensemble.json"))
    return run_dir


@pytest.fixture(scope="session")
def images_NHWC() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Seven random images of 32 pixels."""
    return np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
