"""The assembled network: resize, backbone, attention, head."""

from __future__ import annotations

from typing import Any, assert_never, cast

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from canopy.config import ModelConfig, derive
from canopy.models.attention import CBAM, AttentionMaps, attention_maps
from canopy.models.backbones import Features, check_backbone, create_backbone, layer_distances
from canopy.models.heads import CSRAHead, Head, LinearHead, MLPHead, initialize_classifier
from canopy.models.weights import load_weights, save_weights

__all__ = [
    "AttentionMaps",
    "Classifier",
    "attention_maps",
    "build_model",
    "check_backbone",
    "count_parameters",
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
        imagenet = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        self.renormalizes = (tuple(made_for["mean"]), tuple(made_for["std"])) != imagenet
        self.register_buffer("input_scale_C11", (std_C / own_std_C)[:, None, None], persistent=False)
        self.register_buffer(
            "input_offset_C11", ((mean_C - own_mean_C) / own_std_C)[:, None, None], persistent=False
        )
        self.cbam = CBAM(features.channels, features.channels_last) if config.cbam != "none" else None
        self.head = _head(config, features, num_labels)
        self.backbone_is_frozen = False
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
        if self.renormalizes:
            x_NCHW = x_NCHW * self.input_scale_C11 + self.input_offset_C11
        features: Tensor = cast(Any, self.backbone).forward_features(x_NCHW)
        return features if self.cbam is None else self.cbam(features)

    def freeze_backbone(self) -> None:
        """Let only the head learn from now on: backbone and CBAM stay as they are, and in evaluation mode.

        Their batch-norm statistics do not move, their stochastic depth is off.
        """
        self.backbone_is_frozen = True
        for name, parameter in self.named_parameters():
            if not name.startswith("head."):
                parameter.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        """As in torch, but a frozen backbone never leaves evaluation mode."""
        super().train(mode)
        if self.backbone_is_frozen:
            for module in (self.backbone, self.cbam):
                if module is not None:
                    module.eval()
        return self

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
    initialize_classifier(model.head, label_rates_K)
    return model


def count_parameters(config: ModelConfig, num_labels: int) -> int:
    """Number of parameters of the network that ``config`` describes, in well under a second.

    It is built on torch's meta device, which knows shapes only: no weights are drawn, read or downloaded.

    Raises:
        ConfigError: see :func:`check_backbone`.
    """
    plain = derive(config, pretrained=False, weights=None)
    features = check_backbone(plain)
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Classifier(plain, features, num_labels).parameters())


def parameter_groups(
    model: Classifier,
    lr: float,
    weight_decay: float,
    backbone_lr_factor: float = 1.0,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Groups for an optimizer: the backbone's layers and the new ones, each with and without weight decay.

    Norms, biases and gates (fewer than two axes) are not decayed; frozen parameters are left out. CBAM and
    head learn at ``lr``; the backbone's own layer at distance d from the head (1 is the last) learns at
    ``lr * backbone_lr_factor * layer_decay ** d``, or without the last factor where ``layer_decay`` is 1.
    Layer-wise decay: Bao et al., "BEiT", ICLR 2022; Howard and Ruder, "ULMFiT", ACL 2018. What a layer is,
    timm says (a block of a ResNet, of an EfficientNet, of a transformer).

    Raises:
        ConfigError: when ``layer_decay`` is asked of a backbone whose layers timm does not know.
    """
    distances = layer_distances(model.backbone) if layer_decay != 1 else {}
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        own_name = name.removeprefix("backbone.")
        new = own_name == name or ".cbam." in name
        scale = 1.0 if new else backbone_lr_factor * layer_decay ** distances.get(own_name, 0)
        groups.setdefault((new, scale, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "lr": lr * scale, "weight_decay": weight_decay if decayed else 0.0}
        for (_, scale, decayed), parameters in groups.items()
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
