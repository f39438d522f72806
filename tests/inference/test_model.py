"""The model of a finished run: what it predicts is computed here by hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

import canopy
from canopy.config import Experiment
from canopy.ensemble.model import Ensemble
from canopy.errors import ConfigError, DataError, InputError
from canopy.inference.model import Model
from canopy.models.network import build_model
from canopy.storage.run_dir import RunDir


@pytest.fixture(scope="module")
def model(finished: RunDir) -> Model:
    return canopy.load(finished.root, device="cpu")


def by_hand(run: RunDir, variant: Any, fold: int, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities of one network: center crop, ImageNet's mean and deviation, mean logits of the flips."""
    network = build_model(variant.model, 4).eval()
    network.load_state_dict(load_file(run.path("train", variant.name, f"fold{fold}", "weights.safetensors")))
    edge = (images_NHWC.shape[1] - (variant.augment.crop or images_NHWC.shape[1])) // 2
    inner = images_NHWC[:, edge : images_NHWC.shape[1] - edge, edge : images_NHWC.shape[2] - edge]
    x = (inner / np.float32(255) - IMAGENET_DEFAULT_MEAN) / IMAGENET_DEFAULT_STD
    x_NCHW = torch.from_numpy(x.astype(np.float32)).permute(0, 3, 1, 2)
    turns: list[list[int]] = [[], [2], [3], [2, 3]] if variant.tta == "flips" else [[]]
    with torch.inference_mode():
        logits = torch.stack([network(x_NCHW.flip(axes)) for axes in turns]).mean(0)
    return torch.sigmoid(logits).numpy()


def test_it_predicts_what_the_networks_and_the_ensemble_give(
    finished: RunDir, experiment: Experiment, model: Model, images_NHWC: NDArray[np.uint8]
) -> None:
    found = model.predict_decoded(images_NHWC, member_probabilities=True)
    ensemble = Ensemble.load(finished.path("ensemble", "ensemble.json"))
    members = {
        v.name: [by_hand(finished, v, fold, images_NHWC) for fold in range(experiment.folds)]
        for v in experiment.variants
    }
    expected_NK, _ = ensemble.predict(members)
    np.testing.assert_allclose(found.probs_NK, expected_NK, atol=1e-5)
    assert np.ptp(found.probs_NK) > 0.1, "else anything would agree"
    np.testing.assert_array_equal(found.decisions_NK, found.probs_NK >= ensemble.thresholds)
    np.testing.assert_array_equal(found.thresholds_K, ensemble.thresholds)
    assert list(found.member_probs) == list(ensemble.members)
    for name, probs_NK in found.member_probs.items():
        np.testing.assert_allclose(probs_NK, np.mean(members[name], axis=0), atol=1e-5)


def test_an_image_is_predicted_alike_alone_and_among_others(
    model: Model, images_NHWC: NDArray[np.uint8]
) -> None:
    several = np.concatenate([images_NHWC] * 6)  # more than one batch
    assert len(several) > model.networks.batch_size
    together_NK = model.predict_decoded(several).probs_NK
    alone_NK = np.concatenate([model.predict_decoded(image[None]).probs_NK for image in several[:7]])
    np.testing.assert_allclose(alone_NK, together_NK[:7], atol=1e-5)
    np.testing.assert_allclose(together_NK[35:], together_NK[:7], atol=1e-5)


def test_images_in_every_form_give_one_result(
    model: Model, images_NHWC: NDArray[np.uint8], tmp_path: Path
) -> None:
    expected_NK = model.predict_decoded(images_NHWC).probs_NK
    sink = io.BytesIO()
    Image.fromarray(images_NHWC[1]).save(sink, "PNG")
    path = tmp_path / "two.png"
    Image.fromarray(images_NHWC[2]).save(path)
    opened = Image.fromarray(images_NHWC[3])
    found = model.predict([images_NHWC[0], sink.getvalue(), path, opened, f"file://{path}", str(path)])
    assert found.ids == (None, None, str(path), None, f"file://{path}", str(path))
    np.testing.assert_allclose(found.probs_NK, expected_NK[[0, 1, 2, 3, 2, 2]], atol=1e-6)
    np.testing.assert_allclose(model.predict(images_NHWC).probs_NK, expected_NK, atol=1e-6)
    for one in (images_NHWC[1], sink.getvalue(), Image.fromarray(images_NHWC[1])):
        np.testing.assert_allclose(model.predict(one).probs_NK, expected_NK[[1]], atol=1e-6)


def test_images_of_another_size_are_resized_as_in_training(model: Model, tmp_path: Path) -> None:
    large = np.random.default_rng(1).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    path = tmp_path / "large.png"
    Image.fromarray(large).save(path)
    from_file = model.predict(path).probs_NK
    np.testing.assert_array_equal(from_file, model.predict(large).probs_NK)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(from_file, model.predict(opened).probs_NK)


def test_what_is_no_readable_image_is_named(model: Model, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"Image .*broken\.jpg must be readable. Got: not an image"):
        model.predict([broken])
    with pytest.raises(DataError, match=r"gone\.jpg must be readable. Got: there is no such file"):
        model.predict(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match=r"Image 1 must be readable. Got: the file is empty"):
        model.predict([np.zeros((32, 32, 3), np.uint8), b""])
    with pytest.raises(InputError, match="must not hold credentials") as refused:
        model.predict("s3://key:hidden@bucket/a.png")
    assert "hidden" not in str(refused.value)
    floats: Any = np.zeros((32, 32, 3))
    wrong: Any
    for wrong in (floats, np.zeros((32, 32), np.uint8), [3], 3, {"a.png": 1}):
        with pytest.raises(ConfigError, match="must be"):
            model.predict(wrong)
    with pytest.raises(ConfigError, match=r"must be uint8 of the shape \(N, 32, 32, 3\)"):
        model.predict_decoded(np.zeros((1, 16, 16, 3), np.uint8))


def test_no_images_give_an_empty_prediction(model: Model) -> None:
    found = model.predict([])
    assert (len(found), found.probs_NK.shape) == (0, (0, 4))
    assert list(found.to_pandas().columns)[:2] == ["id", "prob:common"]
    assert len(model.predict(np.zeros((0, 32, 32, 3), np.uint8))) == 0
    wanted = model.predict(np.zeros((1, 32, 32, 3), np.uint8), member_probabilities=True, embeddings=True)
    empty = model.predict([], member_probabilities=True, embeddings=True)
    assert empty.to_arrow().schema == wanted.to_arrow().schema


def test_embeddings_are_what_the_heads_read(model: Model, images_NHWC: NDArray[np.uint8]) -> None:
    found = model.predict(images_NHWC, embeddings=True)
    np.testing.assert_array_equal(found.probs_NK, model.predict(images_NHWC).probs_NK)
    assert list(found.embeddings) == list(model.members)
    trained = model.networks.members["resnet"][0]
    with torch.inference_mode():
        logits = trained.network.head(torch.from_numpy(found.embeddings["resnet"]))  # type: ignore[operator]
    probs_NK = torch.sigmoid(logits).numpy()
    assert trained.variant.tta == "none"
    np.testing.assert_allclose(
        probs_NK, model.networks(images_NHWC).probs["resnet"][0], atol=1e-5, err_msg="not the head's input"
    )
    assert model.predict(images_NHWC).embeddings == {}


def test_an_explanation_weights_the_members_maps(model: Model, images_NHWC: NDArray[np.uint8]) -> None:
    found = model.explain(images_NHWC[0])
    assert found.maps_KHW.shape == (4, 32, 32)
    assert set(found.methods) == set(model.members)
    np.testing.assert_array_equal(found.probs_K, model.predict(images_NHWC[0]).probs_NK[0])
    np.testing.assert_array_equal(found.chip_HWC, images_NHWC[0])
    maps = {name: model.networks.evidence(name, images_NHWC[:1])[0] for name in model.members}
    np.testing.assert_allclose(found.maps_KHW, np.mean(list(maps.values()), axis=0), atol=1e-4)
    cropped = maps["resnet-cbam"]
    assert (cropped[:, :4] == 0).all(), "a center crop of 24 of 32 pixels sees no more"
    assert (cropped[:, 4:28, 4:28] != 0).any()
