"""A run directory as a finished run leaves it, made without training: random networks, a fitted ensemble."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tests.ensemble.worlds import FAST, LABELS, world
from tests.support import tiny_experiment

from canopy.bands import BandStatistics
from canopy.config import Experiment, VariantConfig, derive
from canopy.data.catalogue import Catalogue
from canopy.ensemble.fit import fit_ensemble
from canopy.models.network import build_model
from canopy.predictions.io import write_predictions
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.stored_predictions import fitting_members
from canopy.train.training_run import training_run_directory

FOLDS, FITTING_ROWS = 2, 400


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Networks of this size are slower with more threads, and far slower on cores that others use too."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def experiment() -> Experiment:
    """Three variants in two folds; the second scores the four flips of a center crop."""
    tiny = tiny_experiment(variants=3, trials=0)
    first, second, third = tiny.variants
    cropped = derive(second, augment=derive(second.augment, crop=24), tta="flips")
    ensemble = derive(FAST, combination="mean", calibration="temperature")
    return derive(tiny, variants=(first, cropped, third), folds=FOLDS, ensemble=ensemble)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, experiment: Experiment) -> RunDir:
    """The run directory, with the files that inference reads."""
    return finished_run(tmp_path_factory.mktemp("finished"), experiment)


def finished_run(folder: Path, experiment: Experiment, bands: BandStatistics | None = None) -> RunDir:
    """A run of two folds in ``folder``, as it is after the ensemble stage."""
    run = RunDir(str(folder))
    run.store_config(experiment)
    names = [variant.name for variant in experiment.variants]
    members = dict(zip(names, world(FITTING_ROWS).values(), strict=False))
    first = next(iter(members.values()))
    assert first.targets_NK is not None
    catalogue = Catalogue(
        ids=first.ids.tolist(),
        uris=[""] * FITTING_ROWS,
        targets_NK=first.targets_NK,
        split=np.array(["train"] * FITTING_ROWS),
        fold=np.array([n % FOLDS for n in range(FITTING_ROWS)], np.int8),
        group=np.array([""] * FITTING_ROWS),
        labels=LABELS,
    )
    catalogue.write(run.path("prepare", "catalogue.parquet"))
    run.finish("prepare", "prepared", ["catalogue.parquet"])
    for number, variant in enumerate(experiment.variants):
        for fold in range(FOLDS):
            rows = np.arange(fold, FITTING_ROWS, FOLDS)
            write_predictions(
                run.path(training_run_directory(variant.name, fold), "heldout.parquet"),
                members[variant.name].rows(rows),
            )
            write_training(run, variant, fold, FOLDS * number + fold, bands)
    run.finish("train", "trained")
    fitting = fitting_members(run, list(members), FOLDS, catalogue)
    fit_ensemble(fitting, experiment.ensemble).save(run.path("ensemble", "ensemble.json"))
    run.finish("ensemble", "fitted", ["ensemble.json"])
    return run


def write_training(
    run: RunDir, variant: VariantConfig, fold: int, seed: int, bands: BandStatistics | None = None
) -> None:
    """Write the files of a finished training with a random network."""
    torch.manual_seed(seed)
    network = build_model(variant.model, len(LABELS), bands=bands)
    for parameter in network.head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    directory = training_run_directory(variant.name, fold)
    folder = Path(run.path(directory))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "weights.safetensors", metadata=network.weights_metadata)
    files.write_json(str(folder / "config.json"), variant.model_dump(mode="json"))
    files.write_json(str(folder / "labels.json"), list(LABELS.names))
    outputs = ["weights.safetensors", "config.json", "labels.json", "heldout.parquet"]
    run.finish(directory, f"trained-{seed}", outputs)


@pytest.fixture(scope="session")
def images_NHWC() -> NDArray[np.uint8]:
    """Seven random images of 32 pixels."""
    return np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
