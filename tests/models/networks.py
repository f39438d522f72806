"""Small networks and images for the tests of the models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from canopy.config import ModelConfig
from canopy.models.network import MultiLabelNetwork, build_model

SMALL = "test_resnet"
RATES_K = np.array([0.9, 0.5, 0.1, 0.002, 0.0])


def images(size: int = 32, count: int = 2) -> Tensor:
    """The same noise at each call, shape (count, 3, size, size)."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def model(labels: int = 5, **config: Any) -> MultiLabelNetwork:
    """The same network at each call, predicting ``RATES_K`` at first."""
    torch.manual_seed(0)
    return build_model(ModelConfig(**{"backbone": SMALL, **config}), labels, RATES_K[:labels])


def fill_hub_cache(cache: Path, repository: str, network: nn.Module, described: Any = None) -> Path:
    """Put a network's weights into a hub cache, as a download does; the folder with the files."""
    kept = cache / f"models--{repository.replace('/', '--')}"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    folder = kept / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "model.safetensors")
    if described is not None:
        (folder / "config.json").write_text(json.dumps(described))
    return folder
