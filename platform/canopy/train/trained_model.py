"""Trained networks, read back from a run directory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from safetensors.torch import load
from torch import nn

from canopy.config import VariantConfig, derive
from canopy.errors import RunDirError
from canopy.models.classifier import build_model
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.training_run import training_run_directory

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class TrainedModel:
    """One trained unit, ready to score."""

    variant: VariantConfig
    network: nn.Module


def weights_path(run: RunDir, name: str, fold: int) -> str:
    """Where the weights of variant ``name`` without ``fold`` lie, if they are there."""
    return run.path(training_run_directory(name, fold), WEIGHTS)


def load_trained_model(run: RunDir, name: str, fold: int, labels: int, device: torch.device) -> TrainedModel:
    """The network of a finished training, in evaluation mode, as it was trained.

    Args:
        run: the run directory or URI.
        name: of the variant.
        fold: that the training held out; 0 where there is one fold only.
        labels: K, how many logits it gives.
        device: where to put it.

    Raises:
        RunDirError: when its weights are not there.
    """
    path = weights_path(run, name, fold)
    if not files.exists(path):
        problem = f"must hold the weights of {name}, fold {fold}"
        raise RunDirError(f"Run directory {run.root}", problem, "none", "Run jobs/train.py with it first.")
    variant = VariantConfig.model_validate(
        files.read_json(run.path(training_run_directory(name, fold), "config.json"))
    )
    # The stored weights are complete: nothing is to be fetched from a hub or from elsewhere.
    plain = derive(variant.model, pretrained=False, weights=None)
    network = build_model(plain, labels, None)
    network.load_state_dict(load(files.read_bytes(path)))
    return TrainedModel(variant, network.to(device).eval())
