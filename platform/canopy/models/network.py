"""The whole network: resize, backbone, attention, head; and its parameter groups for the optimizer."""

from __future__ import annotations

from typing import Any, assert_never, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from canopy.bands import BandStatistics
from canopy.config import ModelConfig
from canopy.models.backbone_layers import layer_distances
from canopy.models.backbones import BackboneInfo, create_backbone, probe_backbone
from canopy.models.cbam import CBAM
from canopy.models.heads import CSRAHead, Head, LinearHead, MLPHead, initialize_classifier
from canopy.models.input_statistics import BANDS, InputStatistics, timm_statistics


class MultiLabelNetwork(nn.Module):
    """Maps normalized images (N, C, H, W) to logits (N, K); RGB is normalized by ImageNet's statistics.

    With ``bands``, images are (N, C, H, W), each band normalized by its statistics, and taken as they are.

    A backbone whose weights were made for other statistics (0.5 and 0.5 for many transformers) gets images
    converted to those: the network owns its input, and no caller can differ. ``backbone`` is timm's own
    module, so its weights have timm's names.
    """

    input_scale_C11: Tensor
    input_offset_C11: Tensor
    statistics: InputStatistics
    """The images that the backbone expects."""
    train_size: int | None
    """Side in pixels that images are resized to in training mode, instead of ``input_size``, or None."""

    bands: BandStatistics | None
    """Bands of the images, with the statistics that normalize them; None for RGB."""

    def __init__(
        self,
        config: ModelConfig,
        features: BackboneInfo,
        num_labels: int,
        bands: BandStatistics | None = None,
    ) -> None:
        super().__init__()
        self.input_size, self.train_size = config.input_size, None
        self.bands = bands
        names = None if bands is None else bands.names
        built = create_backbone(config, None if names is None else len(names), names)
        self.backbone = built.network
        for name in ("input_scale_C11", "input_offset_C11"):
            self.register_buffer(name, torch.empty(BANDS, 1, 1), persistent=False)
        self.entry_statistics = timm_statistics(cast(Any, self.backbone).pretrained_cfg, config.backbone)
        self.expect(built.statistics)
        self.cbam = CBAM(features.channels, features.channels_last) if config.cbam != "none" else None
        self.head = _head(config, features, num_labels)
        self.backbone_is_frozen = self.batch_norm_is_frozen = False
        if config.head == "csra":
            self._freeze_unused()

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, K) of images (N, 3, H, W), or, in a probe, of their :meth:`pooled` features (N, D)."""
        logits_NK: Tensor = self.head(inputs if inputs.ndim == 2 else self.pooled(inputs))
        return logits_NK

    def pooled(self, images_NCHW: Tensor) -> Tensor:
        """The input of the head: pooled features (N, D), or feature maps where the head pools itself."""
        features = self.features(images_NCHW)
        if not isinstance(self.head, CSRAHead):
            features = cast(Any, self.backbone).forward_head(features, pre_logits=True)
        return features

    def features(self, images_NCHW: Tensor) -> Tensor:
        """The backbone's last features after attention, in its layout (maps or tokens)."""
        size = self.train_size if self.training and self.train_size is not None else self.input_size
        x_NCHW = resize(images_NCHW, size)
        if self.bands is None and self.statistics.band_order == "bgr":
            x_NCHW = x_NCHW.flip(1)
        if self.bands is None and self.renormalizes:
            x_NCHW = x_NCHW * self.input_scale_C11 + self.input_offset_C11
        features: Tensor = cast(Any, self.backbone).forward_features(x_NCHW)
        return features if self.cbam is None else self.cbam(features)

    def expect(self, statistics: InputStatistics) -> None:
        """Convert images to ``statistics`` from now on."""
        self.statistics = statistics
        self.renormalizes = statistics != InputStatistics()
        scale_C11, offset_C11 = statistics.scale_and_offset()
        device = self.input_scale_C11.device
        self.input_scale_C11, self.input_offset_C11 = scale_C11.to(device), offset_C11.to(device)

    @property
    def weights_metadata(self) -> dict[str, str] | None:
        """Metadata for a file of this network's weights; None where timm's entry says all of it."""
        if self.bands is not None:
            return self.bands.to_metadata()
        return None if self.statistics == self.entry_statistics else self.statistics.to_metadata()

    def freeze_backbone(self, attention: bool = True) -> None:
        """Freeze the backbone, and CBAM too with ``attention``, so that only the rest is trained.

        They stay in evaluation mode: batch-norm statistics do not change and stochastic depth is off.
        """
        self.backbone_is_frozen = True
        for name, parameter in self.named_parameters():
            own = name.startswith("backbone.") and ".cbam." not in name
            if own or (attention and not name.startswith("head.")):
                parameter.requires_grad_(False)
        self.train(self.training)

    def unfreeze_backbone(self) -> None:
        """Undo :meth:`freeze_backbone`, in a network whose head is no CSRA."""
        assert not isinstance(self.head, CSRAHead), "some of its layers never had gradients"
        self.backbone_is_frozen = False
        self.requires_grad_(True)
        self.train(self.training)

    def freeze_batch_norm(self) -> None:
        """Keep the backbone's batch-norm statistics as they are, in training too."""
        self.batch_norm_is_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> MultiLabelNetwork:
        """As in torch, but a frozen backbone stays in evaluation mode, and so does frozen batch norm."""
        super().train(mode)
        if self.backbone_is_frozen:
            for module in (self.backbone, self.cbam):
                if module is not None:
                    module.eval()
        if self.batch_norm_is_frozen:
            for module in self.backbone.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze_unused(self) -> None:
        """Freeze the layers after pooling: CSRA does not use them, and DDP would wait for their gradients."""
        was_training = self.training
        side = self.input_size or cast(Any, self.backbone).pretrained_cfg["input_size"][-1]
        self.eval()(
            torch.zeros(1, BANDS if self.bands is None else len(self.bands.names), side, side)
        ).sum().backward()
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
        self.train(was_training)


def build_model(
    config: ModelConfig,
    num_labels: int,
    label_rates_K: NDArray[np.floating] | None = None,
    bands: BandStatistics | None = None,
) -> MultiLabelNetwork:
    """Build the network of ``config`` on the CPU; new weights come from torch's global random state.

    Args:
        config: backbone, attention, head.
        num_labels: number of labels K.
        label_rates_K: share of positives of each label, shape (K,); the untrained network predicts these
            rates.
        bands: bands of the images, with their statistics; None for RGB.

    Raises:
        ConfigError: see :func:`probe_backbone`, and when weights cannot be loaded or do not fit.
    """
    assert label_rates_K is None or label_rates_K.shape == (num_labels,)
    model = MultiLabelNetwork(config, probe_backbone(config), num_labels, bands)
    initialize_classifier(model.head, label_rates_K)
    return model


def count_parameters(config: ModelConfig, num_labels: int) -> int:
    """Number of parameters of the network of ``config``, in well under a second.

    The network is built on torch's meta device, which holds shapes only: no weights are drawn or downloaded.

    Raises:
        ConfigError: see :func:`probe_backbone`.
    """
    plain = config.untrained
    features = probe_backbone(plain)
    with torch.device("meta"):
        return sum(
            parameter.numel() for parameter in MultiLabelNetwork(plain, features, num_labels).parameters()
        )


def parameter_groups(
    model: MultiLabelNetwork,
    lr: float,
    weight_decay: float,
    backbone_lr_factor: float = 1.0,
    layer_decay: float = 1.0,
    by_layer: bool = False,
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer, by layer, each with or without weight decay.

    Norms, biases and gates (parameters with fewer than two axes) have no weight decay. Frozen parameters are
    left out. CBAM and head have the learning rate ``lr``. The backbone's layer at distance d from the head (1
    is the last) has ``lr * backbone_lr_factor * layer_decay ** d``; the last factor is omitted if
    ``layer_decay`` is 1. Layer-wise decay: Bao et al., "BEiT", ICLR 2022; Howard and Ruder, "ULMFiT", ACL
    2018. timm defines the layers (a block of a ResNet, of an EfficientNet, of a transformer).

    Args:
        model: the network.
        lr: peak learning rate of the new layers.
        weight_decay: weight decay of AdamW.
        backbone_lr_factor: learning rate of the backbone relative to ``lr``.
        layer_decay: factor per layer of distance from the head.
        by_layer: whether each layer of the backbone has groups of its own, with its ``distance`` from the
            head; it is 0 in the groups of CBAM and head.

    Raises:
        ConfigError: when ``layer_decay`` is not 1, or ``by_layer`` is true, for a backbone whose layers timm
            does not define.
    """
    distances = layer_distances(model.backbone) if layer_decay != 1 or by_layer else {}
    groups: dict[tuple[bool, float, bool, int], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        own_name = name.removeprefix("backbone.")
        new = own_name == name or ".cbam." in name
        distance = 0 if new else distances.get(own_name, 0)
        scale = 1.0 if new else backbone_lr_factor * layer_decay**distance
        key = (new, scale, parameter.ndim > 1, distance if by_layer else 0)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr": lr * scale, "weight_decay": weight_decay if decayed else 0.0}
        | ({"distance": distance} if by_layer else {})
        for (_, scale, decayed, distance), parameters in groups.items()
    ]


def resize(images_NCHW: Tensor, size: int | None) -> Tensor:
    """Resize images bilinearly to ``size`` pixels per side, antialiased when they shrink; None: unchanged."""
    if size is None or images_NCHW.shape[-2:] == (size, size):
        return images_NCHW
    shrinks = size < max(images_NCHW.shape[-2:])
    return nn.functional.interpolate(
        images_NCHW, (size, size), mode="bilinear", align_corners=False, antialias=shrinks
    )


def _head(config: ModelConfig, features: BackboneInfo, num_labels: int) -> Head:
    match config.head:
        case "linear":
            return LinearHead(features.pooled, num_labels, config.dropout)
        case "mlp":
            return MLPHead(features.pooled, num_labels, config.dropout)
        case "csra":
            return CSRAHead(features.channels, num_labels, config.dropout, features.channels_last)
        case _:
            assert_never(config.head)
