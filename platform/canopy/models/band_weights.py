"""Weights made for RGB images in a network of other bands: the first layer is adapted as timm does.

timm repeats the weights of red, green and blue over the bands and scales them by 3 / C, so that the sum over
the bands stays (``timm.models.adapt_input_conv``). Chips of bands reach the network with mean 0 and deviation
1 per band, as ImageNet's normalization gives them. Weights that expect another deviation, such as pixels of 0
to 255, have it folded into their first layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from timm.models import adapt_input_conv
from torch import Tensor, nn

from canopy.bands import METADATA_KEY
from canopy.errors import ConfigError
from canopy.models.input_statistics import BANDS, InputStatistics


def refuse_weights_of_bands(metadata: Mapping[str, str], thing: str, source: str) -> None:
    """Refuse weights whose file says that they belong to bands other than RGB.

    Args:
        metadata: metadata of the file.
        thing: name of the option that gave the file; used in error messages.
        source: its address; used in error messages.

    Raises:
        ConfigError: naming the file.
    """
    if METADATA_KEY in metadata:
        remedy = "Take weights made for RGB images, or train from scratch."
        got = f"{source}, made for a run's own bands and their statistics"
        raise ConfigError(thing, "must be weights for RGB images", got, remedy)


def adapt_first_layer(
    tensors: Mapping[str, Tensor], backbone: nn.Module, channels: int, statistics: InputStatistics, thing: str
) -> dict[str, Tensor]:
    """The tensors of an RGB backbone for the same backbone of other bands.

    Args:
        tensors: by the backbone's names.
        backbone: the network of ``channels`` bands.
        channels: number of bands.
        statistics: the images that the weights were made for.
        thing: name of the option that gave the weights; used in error messages.

    Raises:
        ConfigError: when timm does not know the backbone's first layer, or it is no plain convolution.
    """
    config = cast(Any, backbone).pretrained_cfg
    first = config.get("first_conv")
    names = [f"{name}.weight" for name in ((first,) if isinstance(first, str) else first or ()) if name]
    if not names or any(name not in tensors or tensors[name].ndim != 4 for name in names):
        got = f"{config.get('architecture') or type(backbone).__name__}, whose first layer is another"
        remedy = "Take another backbone, or train from scratch."
        raise ConfigError(thing, "must be of a backbone with a known first convolution", got, remedy)
    scale_C11, _ = statistics.scale_and_offset()
    out = dict(tensors)
    for name in names:
        weight = tensors[name].float()
        if weight.shape[1] != BANDS:
            need, remedy = f"must take {BANDS} bands in its first layer", "Take another backbone."
            raise ConfigError(thing, need, f"{weight.shape[1]} ({name})", remedy)
        weight = weight * scale_C11
        if statistics.band_order == "bgr":
            weight = weight.flip(1)
        out[name] = adapt_input_conv(channels, weight)
    return out
