"""Backbones: any timm model by name, untrained, with timm's weights or with weights from a file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from canopy.config import ModelConfig, derive
from canopy.errors import ConfigError, nearest
from canopy.models import hub
from canopy.models.backbone_layers import add_cbam_to_stages, layer_distances, maps_are_channels_last
from canopy.models.band_weights import adapt_first_layer, refuse_weights_of_bands
from canopy.models.input_statistics import BANDS, InputStatistics, timm_statistics
from canopy.models.lora import linear_layers, require_peft
from canopy.models.weights_match import MatchedWeights, match_weights
from canopy.models.weights_source import SourceWeights, check_name, is_at_hand, read_source

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
HUB_PROBLEM = "needs timm's weights from the Hugging Face hub, which could not be downloaded"
WEIGHTS_REMEDY = (
    "Either set model.weights to the path or URI of a safetensors file with the backbone's weights, "
    "or set model.pretrained to false and train from scratch."
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackboneInfo:
    """Shape of a backbone's output for images of one size."""

    maps: bool
    """Whether the output is feature maps with two spatial axes, not tokens."""
    channels: int
    """Number of channels of the last feature map or token."""
    channels_last: bool
    """Whether maps are (N, H, W, C), as in Swin, instead of (N, C, H, W)."""
    pooled: int
    """Length of the pooled vector."""


@dataclass(frozen=True)
class Backbone:
    """A backbone with what goes with its weights."""

    network: nn.Module
    """timm's network without classifier, with CBAM after its stages if configured."""
    statistics: InputStatistics
    """The images that it expects."""
    report: str
    """Where its weights come from and what was used of them, as a phrase; empty without a file of weights."""


def create_backbone(
    config: ModelConfig, channels: int | None = None, bands: Sequence[str] | None = None
) -> Backbone:
    """Build the backbone without classifier, with its weights and with CBAM after its stages if configured.

    The images that it expects are those that the config states, else those of the weights' source, else those
    of timm's entry for the network. First layers of RGB weights are adapted to other bands as timm does:
    repeated and scaled (:mod:`canopy.models.band_weights`).

    Args:
        config: the network.
        channels: number of bands of ``data.bands``; None for RGB.
        bands: their names, by which weights of several bands are recognized; None: unknown.

    Raises:
        ConfigError: when the weights cannot be loaded or do not fit (see also :func:`probe_backbone`).
    """
    rgb = _pretrained(config) if config.pretrained else None
    network = rgb if rgb is not None and channels is None else _create(config, channels=channels or BANDS)
    statistics = timm_statistics(cast(Any, network).pretrained_cfg, f"timm's entry for {config.backbone}")
    report = ""
    if rgb is not None and channels is not None:
        expected = statistics.with_config(config)
        tensors = adapt_first_layer(rgb.state_dict(), network, channels, expected, "model.pretrained")
        network.load_state_dict(tensors)
    if config.weights is not None:
        source, matched = _own_weights(config, "model.weights", channels, bands)
        statistics = source.statistics or statistics
        tensors, expected = matched.tensors, statistics.with_config(config)
        if channels is not None and source.bands is None:
            tensors = adapt_first_layer(tensors, network, channels, expected, "model.weights")
        network.load_state_dict(tensors, strict=False)
        report = f"{source.source}: {matched.text}; {statistics.with_config(config).text}"
        logger.info("weights of %s: %s", config.backbone, report)
    if config.cbam == "all":
        add_cbam_to_stages(network)
    return Backbone(network, statistics.with_config(config), report)


def check_weights(
    config: ModelConfig,
    thing: str,
    fetch: bool = True,
    channels: int | None = None,
    bands: Sequence[str] | None = None,
) -> str:
    """Check that the weights of ``config`` can be had and fit its backbone; the report, as a phrase.

    Args:
        config: the network.
        thing: name of ``model.weights``; used in error messages.
        fetch: whether weights of the hub may be downloaded; without it they are checked if they are cached.
        channels: number of bands of ``data.bands``; None for RGB.
        bands: their names; None: unknown.

    Returns:
        The report of :class:`Backbone`; empty where nothing could be or needed to be checked.

    Raises:
        ConfigError: when the weights cannot be had, or do not fit.
    """
    if config.pretrained and fetch:
        fetch_pretrained(config)
    if config.weights is None:
        return ""
    if not (fetch or is_at_hand(config)):
        check_name(config, thing)
        return ""
    backbone = _twin(config)
    source, matched = _own_weights(config, thing, channels, bands)
    entry = f"timm's entry for {config.backbone}"
    statistics = source.statistics or timm_statistics(cast(Any, backbone).pretrained_cfg, entry)
    if channels is not None and source.bands is None:
        adapt_first_layer(matched.tensors, backbone, channels, statistics.with_config(config), thing)
    return f"{source.source}: {matched.text}; {statistics.with_config(config).text}"


def _twin(config: ModelConfig, channels: int = BANDS) -> nn.Module:
    """The backbone for images of some bands, without memory for its weights."""
    with torch.device("meta"):
        return _create(config, channels=channels)


def fetch_pretrained(config: ModelConfig) -> None:
    """Bring timm's default weights into the hub's cache on this machine, where they are on the hub.

    Raises:
        ConfigError: when the hub does not answer and the cache does not hold them.
    """
    pretrained_cfg = timm.get_pretrained_cfg(config.backbone, allow_unregistered=True)
    if pretrained_cfg is None or not pretrained_cfg.hf_hub_id:
        return  # timm has an address of its own for them
    repository = pretrained_cfg.hf_hub_id
    names = (pretrained_cfg.hf_hub_filename,) if pretrained_cfg.hf_hub_filename else HUB_FILES
    try:
        hub.download(str(repository), names, "model.pretrained")
    except ConfigError as error:
        got = f"{config.backbone}, {error.got}"
        raise ConfigError("model.pretrained", HUB_PROBLEM, got, WEIGHTS_REMEDY) from error


def probe_backbone(config: ModelConfig, image_size: int | None = None) -> BackboneInfo:
    """Check that a backbone can be built and run, in milliseconds and without its weights.

    The network is built and run on torch's meta device, which computes shapes only.

    Args:
        config: backbone, attention, head and input size.
        image_size: height and width of the images, used when ``config.input_size`` is None; if both are None,
            the size that the backbone was pretrained for.

    Raises:
        ConfigError: for a name unknown to timm (with the nearest names), a pretrained model without weights,
            stochastic depth, CBAM or CSRA that the backbone does not support, or an image size that it
            refuses.
    """
    name = config.backbone
    if not timm.is_model(name):
        remedy = nearest(name, timm.list_models())
        if name.partition(":")[0] in {"hf-hub", "hf_hub", "local-dir"}:
            remedy = "Name the architecture here, and set model.weights to this address."
        raise ConfigError("model.backbone", "must be a timm model", name, remedy)
    pretrained_cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config.pretrained and (pretrained_cfg is None or not pretrained_cfg.has_weights):
        known = ", ".join(timm.list_pretrained(name.split(".")[0] + ".*")[:6]) or "none of this architecture"
        remedy = f"Known: {known}. Or set model.pretrained to false."
        raise ConfigError("model.pretrained", "needs a backbone that timm has weights for", name, remedy)
    if config.input_size is None and pretrained_cfg is not None and pretrained_cfg.fixed_input_size:
        problem, remedy = (
            f"must be set for {name}, built for one size",
            f"E.g. {pretrained_cfg.input_size[-1]}.",
        )
        raise ConfigError("model.input_size", problem, None, remedy)
    size = config.input_size or image_size or (pretrained_cfg.input_size[-1] if pretrained_cfg else 224)
    with torch.device("meta"):
        return _probe(config, size)


def check_input_sizes(config: ModelConfig, sizes: Sequence[int]) -> None:
    """Check that a backbone can be trained on images of several sizes (``finetune.input_sizes``).

    Raises:
        ConfigError: when it is built for one size, or refuses one of ``sizes``.
    """
    pretrained_cfg = timm.get_pretrained_cfg(config.backbone, allow_unregistered=True)
    if sizes and pretrained_cfg is not None and pretrained_cfg.fixed_input_size:
        problem = "needs a backbone that takes images of any size"
        raise ConfigError("finetune.input_sizes", problem, config.backbone, "Leave it out.")
    for size in sizes:
        probe_backbone(derive(config, input_size=size))


def check_layers(config: ModelConfig) -> None:
    """Check that timm knows the layers of a backbone (``optim.layer_decay``, ``finetune.unfreeze_epochs``).

    Raises:
        ConfigError: when it does not.
    """
    with torch.device("meta"):
        layer_distances(_create(config))


def check_lora(config: ModelConfig, thing: str) -> None:
    """Check that a backbone has linear layers, and that peft is installed (``finetune.lora_rank``).

    Args:
        config: the network.
        thing: name of the option; used in error messages.

    Raises:
        ConfigError: when not.
    """
    with torch.device("meta"):
        backbone = _create(config)
    if not linear_layers(backbone):
        remedy = "Choose a transformer such as vit_small_patch16_224, or leave it out."
        raise ConfigError(thing, "needs a backbone with linear layers", config.backbone, remedy)
    require_peft(thing)


def _probe(config: ModelConfig, size: int) -> BackboneInfo:
    name = config.backbone
    try:
        backbone = _create(config)
        features, pooled_ND = _run(backbone, size)
    except (RuntimeError, AssertionError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = f"{size} ({str(error).splitlines()[0]})"
        remedy = "Set model.input_size to another, e.g. 64 or 224."
        raise ConfigError("The image size", f"must be one that {name} accepts", reason, remedy) from error
    if features.ndim != 4 and (config.cbam != "none" or config.head == "csra"):
        option = f"model.cbam={config.cbam}" if config.cbam != "none" else "model.head=csra"
        remedy = "Choose a convolutional backbone such as resnet50 or efficientnet_b0, or leave it out."
        raise ConfigError(option, "needs a backbone with feature maps", name, remedy)
    if config.cbam == "all":
        try:
            add_cbam_to_stages(backbone)
            _run(backbone, size)
        except Exception as error:  # any error is possible in a network that is not a chain of stages
            problem = "needs a backbone whose stages each pass on one feature map"
            raise ConfigError("model.cbam=all", problem, name, "Set model.cbam to last.") from error
    return BackboneInfo(
        maps=features.ndim == 4,
        channels=cast(Any, backbone).num_features,
        channels_last=maps_are_channels_last(backbone),
        pooled=pooled_ND.shape[1],
    )


def _run(backbone: nn.Module, size: int) -> tuple[Tensor, Tensor]:
    network = cast(Any, backbone)
    features = network.forward_features(torch.empty(2, 3, size, size))
    return features, network.forward_head(features, pre_logits=True)


def _create(config: ModelConfig, pretrained: bool = False, channels: int = 3) -> nn.Module:
    options: dict[str, Any] = {"drop_path_rate": config.drop_path} if config.drop_path else {}
    options |= {"in_chans": channels} if channels != 3 else {}
    pretrained_cfg = timm.get_pretrained_cfg(config.backbone, allow_unregistered=True)
    if pretrained_cfg is not None and pretrained_cfg.fixed_input_size and config.input_size is not None:
        options["img_size"] = config.input_size
    try:
        return timm.create_model(config.backbone, pretrained=pretrained, num_classes=0, **options)
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        got, remedy = f"{config.drop_path} for {config.backbone}", "Set it to 0 or choose another backbone."
        problem = "must be 0 for a backbone without stochastic depth"
        raise ConfigError("model.drop_path", problem, got, remedy) from error


def _pretrained(config: ModelConfig) -> nn.Module:
    """The backbone for RGB images with timm's weights."""
    fetch_pretrained(config)
    try:
        return _create(config, pretrained=True)
    except ConfigError:
        raise
    except Exception as error:  # the hub's client raises errors of several libraries
        reason = (
            f"{config.backbone} ({type(error).__name__}: {str(error).strip().splitlines()[0].rstrip('.')})"
        )
        raise ConfigError("model.pretrained", HUB_PROBLEM, reason, WEIGHTS_REMEDY) from error


def _own_weights(
    config: ModelConfig, thing: str, channels: int | None, bands: Sequence[str] | None
) -> tuple[SourceWeights, MatchedWeights]:
    """The weights that ``config.weights`` names: for RGB, or for the bands where the source knows these."""
    source = read_source(config, thing, bands)
    refuse_weights_of_bands(source.file.metadata, thing, source.source)
    stated = source.backbone
    if stated is not None and stated.split(".")[0] != config.backbone.split(".")[0]:
        remedy = f"Set model.backbone to {stated}, or give other weights."
        got = f"{source.source}, made for {stated}"
        raise ConfigError(thing, f"must be weights of model.backbone ({config.backbone})", got, remedy)
    backbone = _twin(config) if source.bands is None or channels is None else _twin(config, channels)
    return source, match_weights(source.file, backbone, config.backbone, thing, source.source)
