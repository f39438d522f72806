"""Layers of a backbone: unknown ones are refused."""

from __future__ import annotations

import pytest
from torch import nn

from canopy.errors import ConfigError
from canopy.models.backbone_layers import layer_distances


def test_a_backbone_without_known_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim.layer_decay must be 1, .* Got: Sequential"):
        layer_distances(nn.Sequential(nn.Conv2d(3, 4, 1)))
