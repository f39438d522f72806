"""Small networks and images for the tests of the models."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

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
