"""Where weights may come from: each source gives its tensors and the images that they expect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from tests.models.networks import SMALL, fill_hub_cache, images, model

from canopy.config import ModelConfig, VariantConfig
from canopy.errors import ConfigError
from canopy.models.input_statistics import InputStatistics
from canopy.models.weights import save_weights
from canopy.models.weights_source import is_at_hand, read_source, with_absolute_weights
from canopy.storage.checksum import sha256_of
from canopy.storage.run_dir import RunDir

ENTRY = InputStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""What timm's entry for the network says."""
HALVES = InputStatistics((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
DESCRIBED = {"architecture": SMALL, "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3, "tag": "own"}}


def published() -> Any:
    torch.manual_seed(7)
    return timm.create_model(SMALL, num_classes=11).eval()


def assert_loaded(weights: str, statistics: InputStatistics, **config: Any) -> None:
    """The network has the published backbone, and converts its input to ``statistics``."""
    network = model(weights=weights, **config).eval()
    assert network.statistics == statistics
    plain = model(mean=statistics.mean, std=statistics.std, value_scale=statistics.value_scale).eval()
    backbone: Any = plain.backbone
    own = published()
    own.reset_classifier(0)
    backbone.load_state_dict(own.state_dict())
    torch.testing.assert_close(network.features(images()), plain.features(images()), rtol=0, atol=0)


def finished_run(root: Path, **config: Any) -> RunDir:
    """A run directory with one finished training, ``resnet`` fold 1, as the trainer leaves it."""
    run = RunDir(str(root))
    directory = root / "train" / "resnet" / "fold1"
    network = model(**config)
    save_weights(network, directory / "weights.safetensors", network.weights_metadata)
    variant = {"name": "resnet", "model": {"backbone": SMALL, **config}}
    (directory / "config.json").write_text(json.dumps(variant))
    run.finish("train/resnet/fold1", "f", ["weights.safetensors", "config.json"])
    return run


def test_a_repository_in_the_hubs_cache(hub_cache: Path) -> None:
    fill_hub_cache(hub_cache, "me/own", published(), DESCRIBED)
    assert is_at_hand(ModelConfig(weights="hf-hub:me/own"))
    assert not is_at_hand(ModelConfig(weights="hf-hub:me/other"))
    assert_loaded("hf-hub:me/own", HALVES)
    assert_loaded("hf_hub:me/own@main", HALVES)


@pytest.mark.parametrize("flat", [False, True])
def test_a_local_directory_in_the_hubs_form(tmp_path: Path, flat: bool) -> None:
    torch.save(published().state_dict(), tmp_path / "pytorch_model.bin")
    described = {"architecture": SMALL, "mean": [0.5] * 3, "std": [0.25] * 3} if flat else DESCRIBED
    (tmp_path / "config.json").write_text(json.dumps(described))
    assert_loaded(f"local-dir:{tmp_path}", HALVES)


def test_a_file_and_the_statistics_in_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_file(published().state_dict(), path, metadata=HALVES.to_metadata())
    assert_loaded(str(path), HALVES)
    assert_loaded(path.as_uri(), HALVES)
    assert_loaded(f"{path}#sha256={sha256_of(str(path))}", HALVES)
    stated = InputStatistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 255.0)
    assert_loaded(str(path), stated, mean=stated.mean, std=stated.std, value_scale=255)
    torch.save(published().state_dict(), tmp_path / "own.pth")
    assert_loaded(str(tmp_path / "own.pth"), ENTRY)


def test_an_object_in_a_store(tmp_path: Path, s3_here: str) -> None:
    save_file(published().state_dict(), tmp_path / "own.safetensors", metadata=HALVES.to_metadata())
    client = boto3.client("s3", endpoint_url=s3_here)
    client.create_bucket(Bucket="published")
    client.upload_file(str(tmp_path / "own.safetensors"), "published", "own.safetensors")
    assert_loaded("s3://published/own.safetensors", HALVES)


@pytest.mark.parametrize("statistics", [ENTRY, HALVES])
def test_another_run(tmp_path: Path, statistics: InputStatistics) -> None:
    config = {} if statistics == ENTRY else {"mean": statistics.mean, "std": statistics.std}
    finished_run(tmp_path, **config)
    network = model(weights=f"run:{tmp_path}#resnet@1", labels=3)
    assert network.statistics == statistics
    saved = load_file(tmp_path / "train/resnet/fold1/weights.safetensors")
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(tensor, saved[f"backbone.{name}"]), name


def test_a_run_without_that_training(tmp_path: Path) -> None:
    finished_run(tmp_path)
    for name in ("resnet", "other@1"):
        with pytest.raises(ConfigError, match=r"must name a finished training .* Finished there: resnet@1\."):
            read_source(ModelConfig(weights=f"run:{tmp_path}#{name}"))
    with pytest.raises(ConfigError, match=r"Nothing is finished there"):
        read_source(ModelConfig(weights=f"run:{tmp_path}/none#resnet"))
    with pytest.raises(ConfigError, match=r"must have the form run:PATH#VARIANT"):
        read_source(ModelConfig(weights=f"run:{tmp_path}"))
    with pytest.raises(ConfigError, match=r"model.weights must be weights of model.backbone \(test_effi"):
        model(weights=f"run:{tmp_path}#resnet@1", backbone="test_efficientnet")


def test_a_run_whose_weights_were_exchanged(tmp_path: Path) -> None:
    finished_run(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "train/resnet/fold1/weights.safetensors")
    with pytest.raises(ConfigError, match=r"must be the file that its training wrote .* Got: .*weights"):
        read_source(ModelConfig(weights=f"run:{tmp_path}#resnet@1"))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nothing.safetensors", r"Got: nothing.safetensors \(No such file or directory\)"),
        (
            "nowhere://x/y",
            r"Got: nowhere://x/y \(must be one that Canopy can read: nowhere\)",
        ),
        ("local-dir:/nothing", r"must hold config.json and one of .* \(no such directory\)"),
        ("own#sha256=12", r"must be followed by 64 hexadecimal digits after #sha256=. Got: 12"),
        ("own#sha256=", r"Got: nothing"),
    ],
)
def test_an_address_that_leads_nowhere(address: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_source(ModelConfig(weights=address), "variant a: model.weights")
    assert str(caught.value).startswith("variant a: model.weights ")
    assert "\n" not in str(caught.value)


def test_hashes(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_file(published().state_dict(), path)
    own, other = sha256_of(str(path)), "0" * 64
    read_source(ModelConfig(weights=str(path), weights_sha256=own))
    with pytest.raises(ConfigError, match=rf"must have SHA-256 {other}. Got: .*own.safetensors with {own}"):
        read_source(ModelConfig(weights=str(path), weights_sha256=other))
    with pytest.raises(ConfigError, match="must have one hash"):
        read_source(ModelConfig(weights=f"{path}#sha256={own}", weights_sha256=other))


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ("{", r"config.json of local-dir:.* must be JSON"),
        ("{}", r"must name timm's architecture"),
        ('{"architecture": "test_resnet", "mean": [1], "std": [1]}', r"mean must be for 3 bands"),
    ],
)
def test_a_description_that_cannot_be_used(tmp_path: Path, described: str, message: str) -> None:
    save_file(published().state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(described)
    with pytest.raises(ConfigError, match=message):
        read_source(ModelConfig(weights=f"local-dir:{tmp_path}"))


def test_weights_described_as_another_network(tmp_path: Path) -> None:
    save_file(published().state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**DESCRIBED, "architecture": "test_efficientnet"}))
    with pytest.raises(ConfigError, match=r"made for test_efficientnet. Set model.backbone to test_effic"):
        model(weights=f"local-dir:{tmp_path}")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ("own.safetensors", "{here}/own.safetensors"),
        ("a#b.pth#sha256=0", "{here}/a#b.pth#sha256=0"),
        ("/abs/own.pth", "/abs/own.pth"),
        ("local-dir:own", "local-dir:{here}/own"),
        ("run:runs/a#v@1", "run:{here}/runs/a#v@1"),
        ("run:s3://b/a#v", "run:s3://b/a#v"),
        ("s3://b/own", "s3://b/own"),
        ("hf-hub:me/own", "hf-hub:me/own"),
    ],
)
def test_a_local_path_means_the_same_in_every_process(
    given: str | None, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variant = with_absolute_weights(VariantConfig(name="a", model=ModelConfig(weights=given)))
    assert variant.model.weights == (expected and expected.format(here=tmp_path))
