"""The stages and layers of a backbone as timm describes them: CBAM after stages, distances from the head."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import timm
from torch import nn

from canopy.errors import ConfigError
from canopy.models.cbam import StageWithCBAM

STEMS = ("act1", "bn1", "stem")
"""Names in timm's ``feature_info`` that are not stages."""


def add_cbam_to_stages(backbone: nn.Module) -> None:
    """Put CBAM after every stage but the last; the classifier has its own CBAM after the last stage."""
    channels_last = maps_are_channels_last(backbone)
    for info in stage_infos(backbone)[:-1]:
        path, _, child = info["module"].rpartition(".")
        parent = backbone.get_submodule(path)
        parent.register_module(
            child, StageWithCBAM(parent.get_submodule(child), info["num_chs"], channels_last)
        )


def stage_infos(backbone: nn.Module) -> list[dict[str, Any]]:
    """Descriptions by timm of each stage, in order: ``module``, ``num_chs``, ``reduction``."""
    infos = cast(Any, backbone).feature_info
    infos = infos.get_dicts() if hasattr(infos, "get_dicts") else infos
    return [dict(info) for info in infos if info["module"] not in STEMS]


def maps_are_channels_last(backbone: nn.Module) -> bool:
    """Whether the backbone's feature maps are (N, H, W, C)."""
    return getattr(backbone, "output_fmt", "NCHW") == "NHWC"


def layer_distances(backbone: nn.Module) -> dict[str, int]:
    """Distance in layers of the backbone's own parameters from the head, by name; 1 in the last layer.

    Raises:
        ConfigError: when timm does not define the layers of this backbone.
    """
    if not hasattr(backbone, "group_matcher"):
        remedy = "Leave out both and use optim.backbone_lr_factor, or choose another backbone."
        problem = "must be 1, and finetune.unfreeze_epochs 0, for a backbone whose layers timm does not know"
        raise ConfigError("optim.layer_decay", problem, type(backbone).__name__, remedy)
    names = (name for name, _ in backbone.named_parameters() if ".cbam." not in name)
    own = {name: name.replace(".plain.", ".") for name in names}
    # timm's patterns match timm's names, not those of stages wrapped for attention.
    named = SimpleNamespace(named_parameters=lambda: [(plain, None) for plain in own.values()])
    layers = timm.models.group_parameters(cast(Any, named), cast(Any, backbone).group_matcher(), reverse=True)
    count = max(layers.values()) + 1
    return {name: count - layers[plain] for name, plain in own.items()}
