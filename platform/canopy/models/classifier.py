"""The assembled network: resize, backbone, attention, head."""

from __future__ import annotations

from typing import Any, assert_never, cast

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from canopy.config import ModelConfig
from canopy.models.attention import CBAM, AttentionMaps, attention_maps
from canopy.models.backbones import Features, check_backbone, create_backbone
from canopy.models.heads import CSRAHead, Head, LinearHead, MLPHead, start_at_rates
from canopy.models.weights import load_weights, save_weights

__all__ = [
    "AttentionMaps",
    "Classifier",
    "attention_maps",
    "build_model",
    "check_backbone",
    "load_weights",
    "parameter_groups",
    "resize",
    "save_weights",
]


class Classifier(nn.Module):
    """Images (N, 3, H, W), normalised by ImageNet's mean and deviation, to logits (N, K).

    A backbone whose weights timm declares to be made for another mean and deviation (0.5 and 0.5, for
    many a transformer) is given images normalised by those. ``backbone`` is timm's own module, so its
    part of the weights keeps timm's names.
    """

    input_scale_C11: Tensor
    input_offset_C11: Tensor

    def __init__(self, config: ModelConfig, features: Features, num_labels: int) -> None:
        super().__init__()
        self.input_size = config.input_size
        self.backbone = create_backbone(config)
        made_for = cast(Any, self.backbone).pretrained_cfg
        own_mean_C, own_std_C = torch.tensor(made_for["mean"]), torch.tensor(made_for["std"])
        mean_C, std_C = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
        self.renormalises = not (torch.equal(own_mean_C, mean_C) and torch.equal(own_std_C, std_C))
        self.register_buffer("input_scale_C11", (std_C / own_std_C)[:, None, None], persistent=False)
        self.register_buffer(
            "input_offset_C11", ((mean_C - own_mean_C) / own_std_C)[:, None, None], persistent=False
        )
        self.cbam = CBAM(features.channels, features.channels_last) if config.cbam != "none" else None
        self.head = _head(config, features, num_labels)
        if config.head == "csra":
            self._freeze_unused()

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits, one per label."""
        features = self.features(images_NCHW)
        if not isinstance(self.head, CSRAHead):
            features = cast(Any, self.backbone).forward_head(features, pre_logits=True)
        logits_NK: Tensor = self.head(features)
        return logits_NK

    def features(self, images_NCHW: Tensor) -> Tensor:
        """The last features after attention, in the backbone's layout (maps or tokens)."""
        x_NCHW = resize(images_NCHW, self.input_size)
        if self.renormalises:
            x_NCHW = x_NCHW * self.input_scale_C11 + self.input_offset_C11
        features: Tensor = cast(Any, self.backbone).forward_features(x_NCHW)
        return features if self.cbam is None else self.cbam(features)

    def _freeze_unused(self) -> None:
        """Freeze what csra passes by (layers after pooling): DDP waits for ever for their gradients."""
        was_training = self.training
        side = self.input_size or cast(Any, self.backbone).pretrained_cfg["input_size"][-1]
        self.eval()(torch.zeros(1, 3, side, side)).sum().backward()
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
        self.train(was_training)


def build_model(
    config: ModelConfig, num_labels: int, label_rates_K: NDArray[np.floating] | None = None
) -> Classifier:
    """The network that ``config`` describes, on the CPU, drawn from torch's global random state.

    Args:
        config: backbone, attention, head.
        num_labels: K.
        label_rates_K: share of positives of each label; the network starts by predicting them.

    Raises:
        ConfigError: see :func:`check_backbone`, and when weights cannot be had or do not fit.
    """
    assert label_rates_K is None or label_rates_K.shape == (num_labels,)
    model = Classifier(config, check_backbone(config), num_labels)
    start_at_rates(model.head, label_rates_K)
    return model


def parameter_groups(
    model: Classifier, lr: float, weight_decay: float, backbone_lr_factor: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for an optimizer: backbone and new layers, each with and without weight decay.

    Norms, biases and gates (fewer than two axes) are not decayed; frozen parameters are left out. The
    backbone's own parameters learn at ``lr * backbone_lr_factor``, attention and head at ``lr``.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            pretrained = name.startswith("backbone.") and ".cbam." not in name
            groups.setdefault((pretrained, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * (backbone_lr_factor if pretrained else 1.0),
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (pretrained, decayed), parameters in groups.items()
    ]


def resize(images_NCHW: Tensor, size: int | None) -> Tensor:
    """Images of ``size`` pixels a side, bilinear, smoothed first when they shrink; None leaves them."""
    if size is None or images_NCHW.shape[-2:] == (size, size):
        return images_NCHW
    shrinks = size < max(images_NCHW.shape[-2:])
    return nn.functional.interpolate(
        images_NCHW, (size, size), mode="bilinear", align_corners=False, antialias=shrinks
    )


def _head(config: ModelConfig, features: Features, num_labels: int) -> Head:
    match config.head:
        case "linear":
            return LinearHead(features.pooled, num_labels, config.dropout)
        case "mlp":
            return MLPHead(features.pooled, num_labels, config.dropout)
        case "csra":
            return CSRAHead(features.channels, num_labels, config.dropout, features.channels_last)
        case _:
            assert_never(config.head)
