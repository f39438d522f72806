"""The model of a finished run: what it predicts is computed here by hand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from canopy.config import Experiment
from canopy.ensemble.model import Ensemble
from canopy.errors import PredictionsError, RunDirError
from canopy.inference.model import Model
from canopy.models.network import build_model
from canopy.storage.run_dir import RunDir


def probabilities(run_dir: RunDir, variant: Any, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities of one variant: center crop, ImageNet's mean and deviation, mean logits of the flips."""
    network = build_model(variant.model, 4).eval()
    network.load_state_dict(load_file(run_dir.path("train", variant.name, "fold0", "weights.safetensors")))
    edge = (images_NHWC.shape[1] - (variant.augment.crop or images_NHWC.shape[1])) // 2
    inner = images_NHWC[:, edge : images_NHWC.shape[1] - edge, edge : images_NHWC.shape[2] - edge]
    x = (inner / np.float32(255) - IMAGENET_DEFAULT_MEAN) / IMAGENET_DEFAULT_STD
    x_NCHW = torch.from_numpy(x.astype(np.float32)).permute(0, 3, 1, 2)
    turns: list[list[int]] = [[], [2], [3], [2, 3]] if variant.tta == "flips" else [[]]
    with torch.inference_mode():
        logits = torch.stack([network(x_NCHW.flip(axes)) for axes in turns]).mean(0)
    return torch.sigmoid(logits).numpy()


def test_it_predicts_what_the_networks_and_the_ensemble_give(
    finished: RunDir, experiment: Experiment, images_NHWC: NDArray[np.uint8]
) -> None:
    probs_NK, decisions_NK = Model.load(finished).predict(images_NHWC)
    ensemble = Ensemble.load(finished.path("ensemble", "ensemble.json"))
    members = {v.name: probabilities(finished, v, images_NHWC) for v in experiment.variants}
    expected_NK, _ = ensemble.predict(members)
    np.testing.assert_allclose(probs_NK, expected_NK, atol=1e-5)
    assert np.ptp(probs_NK) > 0.1, "else anything would agree"
    np.testing.assert_array_equal(decisions_NK, probs_NK >= ensemble.thresholds)


def test_an_image_is_predicted_alike_alone_and_among_others(
    finished: RunDir, images_NHWC: NDArray[np.uint8]
) -> None:
    model = Model.load(finished)
    together_NK, _ = model.predict(images_NHWC)
    alone_NK = np.concatenate([model.predict(images_NHWC[n : n + 1])[0] for n in range(len(images_NHWC))])
    np.testing.assert_allclose(alone_NK, together_NK, atol=1e-5)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("config.yaml", RunDirError),
        ("ensemble/ensemble.json", RunDirError),
        ("train/resnet/fold0/weights.safetensors", RunDirError),
    ],
)
def test_a_missing_file_is_named(finished: RunDir, path: str, error: type[Exception], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished.root, tmp_path / "copy"))
    (copy / path).unlink()
    with pytest.raises(error, match="must hold"):
        Model.load(RunDir(str(copy)))


def test_a_damaged_ensemble_is_named(finished: RunDir, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished.root, tmp_path / "copy"))
    file = copy / "ensemble" / "ensemble.json"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(PredictionsError, match=r"ensemble\.json"):
        Model.load(RunDir(str(copy)))
