"""The folder for the Hugging Face hub: read back bit for bit; damaged and exchanged files are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

import canopy
from canopy.errors import RunDirError
from canopy.inference.export.hub import hub_content, is_hub_folder, read_hub, write_hub
from canopy.inference.model import Model
from canopy.storage.run_dir import RunDir

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A written folder."""
    place = tmp_path_factory.mktemp("hub") / "folder"
    write_hub(hub_content(model), "# Card\n", place)
    return place


def test_a_folder_is_read_back_bit_for_bit(
    folder: Path, model: Model, images_NHWC: NDArray[np.uint8]
) -> None:
    loaded = canopy.load(str(folder), device="cpu", precision="float32")
    ours, theirs = loaded.predict_decoded(images_NHWC), model.predict_decoded(images_NHWC)
    np.testing.assert_array_equal(ours.probs_NK, theirs.probs_NK)
    np.testing.assert_array_equal(ours.decisions_NK, theirs.decisions_NK)
    assert loaded.decoder == model.decoder
    assert loaded.labels == model.labels


def test_its_files_are_those_of_the_hub(folder: Path, model: Model) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    config = json.loads((folder / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert config["id2label"] == {str(k): name for k, name in enumerate(model.labels.names)}
    assert config["label2id"]["rare"] == 3
    assert config["canopy"]["version"] == canopy.__version__
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
    assert preprocessor["size"] == {"height": 32, "width": 32}
    assert preprocessor["image_mean"] == [0.485, 0.456, 0.406]
    assert preprocessor["crop_size"]["resnet-cbam"] == 24


@pytest.fixture(scope="module")
def band_folder(with_bands: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The written folder of a model of bands."""
    place = tmp_path_factory.mktemp("hub-bands") / "folder"
    write_hub(hub_content(canopy.load(with_bands.root, device="cpu")), "# Card\n", place)
    return place


def test_bands_and_their_statistics_are_read_back(
    band_folder: Path, with_bands: RunDir, band_chips_NHWC: NDArray[np.uint16], tmp_path: Path
) -> None:
    loaded, model = (canopy.load(str(one), device="cpu") for one in (band_folder, with_bands.root))
    assert loaded.decoder == model.decoder
    assert loaded.networks.bands == model.networks.bands
    ours, theirs = (one.predict_decoded(band_chips_NHWC[:7]).probs_NK for one in (loaded, model))
    np.testing.assert_array_equal(ours, theirs)
    preprocessor = json.loads((band_folder / "preprocessor_config.json").read_text())
    assert not preprocessor["do_convert_rgb"]
    pixel = band_chips_NHWC[0, 0, 0] * preprocessor["rescale_factor"]
    assert model.networks.bands is not None
    np.testing.assert_allclose(
        (pixel - preprocessor["image_mean"]) / preprocessor["image_std"],
        (band_chips_NHWC[0, 0, 0] - np.array(model.networks.bands.mean)) / model.networks.bands.std,
    )


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("statistics", None, "bands.statistics"),
        ("layout", {"bands": [{"name": "red"}], "dtype": "uint16", "max_nodata": 0.5}, "bands of its images"),
        ("layout", {"bands": [{"name": 1}]}, "bands of its images"),
    ],
)
def test_damaged_bands_are_named(
    band_folder: Path, part: str, value: object, message: str, tmp_path: Path
) -> None:
    place = Path(shutil.copytree(band_folder, tmp_path / "copy"))
    config = json.loads((place / "config.json").read_text())
    config["canopy"]["bands"][part] = value
    (place / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunDirError, match=message):
        read_hub(str(place), CPU)


def test_a_run_directory_is_no_folder_of_the_hub(folder: Path, tmp_path: Path) -> None:
    assert is_hub_folder(str(folder))
    (tmp_path / "config.json").write_text("{}")
    assert not is_hub_folder(str(tmp_path))


def exchange_weights(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({name: tensor + 0 for name, tensor in state.items()}, folder / "model.safetensors", {"a": "b"})


def change(key: str, value: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["canopy"][key] = value
        (folder / "config.json").write_text(json.dumps(config))

    return apply


def forget_a_network(folder: Path) -> None:
    import hashlib

    state = load_file(folder / "model.safetensors")
    save_file({n: t for n, t in state.items() if "/fold1/" not in n}, folder / "model.safetensors")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    change("weights_sha256", digest)(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (exchange_weights, r"model\.safetensors must be the weights that config\.json was written with"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"must hold model\.safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json must be"),
        (change("format", "canopy-hub/9"), r"must be of format canopy-hub/1.*Use the version of Canopy"),
        (change("variants", {}), "must describe every member"),
        (change("variants", 3), "must hold a model of Canopy"),
        (change("ensemble", {"format": "x"}), "labels"),
        (change("image_size", "32"), "image_size"),
        (forget_a_network, "must hold the weights of .*no tensor"),
    ],
    ids=range(9),
)
def test_what_is_damaged_is_named(
    damage: Callable[[Path], Any], message: str, folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    damage(copy)
    with pytest.raises(RunDirError, match=message):
        read_hub(str(copy), CPU)
