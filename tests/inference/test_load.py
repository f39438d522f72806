"""Loading a finished run: its files, the choice of members, where and how the networks run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import canopy
from canopy.config import Experiment
from canopy.data.catalogue import Catalogue
from canopy.ensemble.model import Ensemble
from canopy.errors import ConfigError, InputError, PredictionsError, RunDirError
from canopy.inference.members import subset_loss
from canopy.storage.run_dir import RunDir
from canopy.train.stored_predictions import fitting_members


@pytest.fixture
def copy(finished: RunDir, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished.root, tmp_path / "copy"))


def test_the_decoder_is_the_one_of_the_config(finished: RunDir, experiment: Experiment) -> None:
    decoder = canopy.load(finished.root).decoder
    assert (decoder.size, decoder.sensor) == (experiment.data.image_size, experiment.data.sensor)
    assert decoder.max_bytes == experiment.data.max_image_mb * 10**6


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("config.yaml", RunDirError, "must hold a config.yaml"),
        ("ensemble/ensemble.json", RunDirError, "must hold a finished ensemble"),
        ("train/resnet/fold1/weights.safetensors", RunDirError, "must hold the weights of resnet, fold 1"),
    ],
)
def test_a_missing_file_is_named(path: str, error: type[Exception], said: str, copy: Path) -> None:
    (copy / path).unlink()
    with pytest.raises(error, match=said):
        canopy.load(str(copy))


def test_the_stage_that_has_not_finished_is_named(copy: Path) -> None:
    shutil.rmtree(copy / "ensemble")
    with pytest.raises(RunDirError, match="the stage ensemble has not finished"):
        canopy.load(str(copy))
    (copy / "train" / "done.json").unlink()
    with pytest.raises(RunDirError, match="the stage train has not finished"):
        canopy.load(str(copy))


def test_a_damaged_ensemble_is_named(copy: Path) -> None:
    file = copy / "ensemble" / "ensemble.json"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"ensemble\.json"):
        canopy.load(str(copy))


def test_weights_of_another_training_are_named(copy: Path) -> None:
    folder = copy / "train" / "resnet"
    shutil.copy(folder / "fold1" / "weights.safetensors", folder / "fold0" / "weights.safetensors")
    with pytest.raises(RunDirError, match=r"fold0/weights\.safetensors must be the file that"):
        canopy.load(str(copy))


def test_credentials_in_the_address_are_refused() -> None:
    with pytest.raises(InputError, match="must not hold credentials"):
        canopy.load("s3://key:hidden@bucket/run")


def test_a_choice_of_members_is_refitted(
    finished: RunDir, experiment: Experiment, images_NHWC: NDArray[np.uint8]
) -> None:
    names = [variant.name for variant in experiment.variants]
    whole = canopy.load(finished.root)
    assert sorted(whole.members) == sorted(names)
    assert canopy.load(finished.root, members=names[::-1]).ensemble.thresholds.tolist() == (
        whole.ensemble.thresholds.tolist()
    )
    two = canopy.load(finished.root, members=names[:2])
    assert sorted(two.members) == sorted(names[:2])
    assert set(two.networks.members) == set(names[:2])
    assert two.ensemble.fitted_on is not None
    assert two.ensemble.fitted_on.rows == 400
    assert not np.allclose(two.predict(images_NHWC).probs_NK, whole.predict(images_NHWC).probs_NK)


def test_at_most_so_many_members_are_the_best_of_that_number(
    finished: RunDir, experiment: Experiment
) -> None:
    names = [variant.name for variant in experiment.variants]
    catalogue = Catalogue.read(finished.path("prepare", "catalogue.parquet"))
    stored = fitting_members(finished, names, experiment.folds, catalogue)
    losses = {name: subset_loss(stored, (name,), experiment.ensemble) for name in names}
    one = canopy.load(finished.root, max_members=1)
    assert one.members == (min(losses, key=losses.__getitem__),)
    assert len(canopy.load(finished.root, max_members=2).members) == 2
    assert len(canopy.load(finished.root, max_members=9).members) == 3
    assert canopy.load(finished.root, members=["efficientnet"], max_members=2).members == ("efficientnet",)


def test_wrong_arguments_are_refused(finished: RunDir) -> None:
    wrong: list[dict[str, Any]] = [
        {"members": ["resnett"]},
        {"members": []},
        {"members": "resnet"},
        {"max_members": 0},
        {"device": "cuda:99"},
        {"device": "abacus"},
        {"precision": "float16"},
    ]
    for arguments in wrong:
        with pytest.raises(ConfigError, match="must be"):
            canopy.load(finished.root, **arguments)


def test_members_cannot_be_refitted_without_stored_predictions(copy: Path) -> None:
    (copy / "train" / "resnet" / "fold1" / "heldout.parquet").unlink()
    with pytest.raises(PredictionsError, match=r"heldout\.parquet"):
        canopy.load(str(copy), max_members=2)
    (copy / "prepare" / "catalogue.parquet").unlink()
    with pytest.raises(PredictionsError, match=r"catalogue\.parquet"):
        canopy.load(str(copy), max_members=2)


def test_the_ensemble_itself_is_the_stored_one(finished: RunDir) -> None:
    stored = Ensemble.load(finished.path("ensemble", "ensemble.json"))
    loaded = canopy.load(finished.root).ensemble
    np.testing.assert_array_equal(loaded.thresholds, stored.thresholds)
    assert loaded.summary == stored.summary
