"""``model.json``: what it lists, and every way in which a model can differ from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import canopy
from canopy.config import Experiment, derive
from canopy.errors import RunDirError
from canopy.inference.model_file import ENSEMBLE_FILE, ModelFile, write_model_file
from canopy.storage.checksum import sha256_of
from canopy.storage.run_dir import RunDir


@pytest.fixture
def copy(finished: RunDir, experiment: Experiment, tmp_path: Path) -> Path:
    """A copy of the finished run with ``model.json``."""
    path = Path(shutil.copytree(finished.root, tmp_path / "copy"))
    write_model_file(RunDir(str(path)), experiment)
    return path


def change(path: Path, **fields: Any) -> None:
    """Replace fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_it_lists_every_file_of_the_model_and_reads_back(copy: Path, experiment: Experiment) -> None:
    model = ModelFile.read(str(copy / "model.json"))
    assert model.canopy == canopy.__version__
    assert model.members == tuple(variant.name for variant in experiment.variants)
    assert (model.folds, model.image_size) == (2, 32)
    assert len(model.sha256) == 1 + 3 * 2 * 3
    for name, digest in model.sha256.items():
        assert sha256_of(str(copy / name)) == digest
    assert ModelFile.of(RunDir(str(copy)), experiment) == model
    assert canopy.load(str(copy)).members


@pytest.mark.parametrize(
    "name",
    [
        ENSEMBLE_FILE,
        "train/resnet/fold0/weights.safetensors",
        "train/resnet-cbam/fold1/config.json",
        "train/efficientnet/fold1/labels.json",
    ],
)
def test_a_changed_file_is_named(name: str, copy: Path) -> None:
    path = copy / name
    data = path.read_bytes()
    path.write_bytes(data + b"\n" if name.endswith("json") else data[:-1] + b"\x01")
    with pytest.raises(RunDirError, match=rf"{name} must be the file that model\.json lists\. Got: another"):
        canopy.load(str(copy))


def test_weights_are_checked_to_the_last_byte_without_marks(copy: Path) -> None:
    for mark in copy.rglob("done.json"):
        mark.unlink()
    canopy.load(str(copy))
    folder = copy / "train" / "resnet"
    shutil.copy(folder / "fold1" / "weights.safetensors", folder / "fold0" / "weights.safetensors")
    with pytest.raises(RunDirError, match=r"resnet/fold0/weights\.safetensors must be the file that model"):
        canopy.load(str(copy))
    (folder / "fold0" / "labels.json").unlink()
    (folder / "fold0" / "weights.safetensors").unlink()
    with pytest.raises(RunDirError, match=r"no such file"):
        canopy.load(str(copy))


def test_another_format_is_refused_with_its_remedy(copy: Path) -> None:
    file = copy / "model.json"
    change(file, format="canopy-model/2", canopy="9.9.9")
    newer = (
        r"must be of the format canopy-model/1. Got: canopy-model/2, made by Canopy 9\.9\.9. Update Canopy"
    )
    with pytest.raises(RunDirError, match=newer):
        canopy.load(str(copy))
    change(file, format="canopy-model/0")
    with pytest.raises(RunDirError, match=r"Run jobs/pipeline\.py with the run directory again"):
        canopy.load(str(copy))
    for wrong in ("canopy-ensemble/1", "", 3):
        change(file, format=wrong)
        with pytest.raises(RunDirError, match=r"model\.json: format must be"):
            canopy.load(str(copy))
    file.write_text("{")
    with pytest.raises(RunDirError, match=r"model\.json must be a JSON file"):
        canopy.load(str(copy))


def test_a_config_with_other_preprocessing_is_refused(copy: Path, experiment: Experiment) -> None:
    run = RunDir(str(copy))
    run.store_config(derive(experiment, data=derive(experiment.data, image_size=48)))
    with pytest.raises(RunDirError, match=r"data\.image_size must be as in model\.json, 32. Got: 48"):
        canopy.load(str(copy))
    sensor = derive(experiment.data.sensor, black=3)
    run.store_config(derive(experiment, data=derive(experiment.data, sensor=sensor)))
    with pytest.raises(RunDirError, match=r"data\.sensor must be as in model\.json"):
        canopy.load(str(copy))


def test_without_it_the_marks_of_the_stages_stand_in(finished: RunDir, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished.root, tmp_path / "old"))
    assert not (copy / "model.json").exists()
    canopy.load(str(copy))
    file = copy / ENSEMBLE_FILE
    kept = file.read_bytes()
    file.write_bytes(kept.replace(b'"summary"', b' "summary"', 1))
    with pytest.raises(RunDirError, match=r"ensemble\.json must be the file that its stage wrote"):
        canopy.load(str(copy))
    file.write_bytes(kept)
    (copy / "ensemble" / "done.json").unlink()
    with pytest.raises(RunDirError, match="the stage ensemble has not finished"):
        canopy.load(str(copy))
