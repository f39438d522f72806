"""The images that a network's weights were made for: mean, standard deviation, band order, value scale.

Canopy normalizes every RGB image in one way (:func:`canopy.data.transforms.normalize.normalize`, ImageNet's
mean and standard deviation of values in [0, 1]). A network whose weights expect something else converts its
input itself, in its forward pass, so that training, prediction, service and export cannot differ.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, cast

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from canopy.config import ModelConfig
from canopy.errors import ConfigError

BANDS = 3
"""Bands of every image that a network gets."""
METADATA_KEYS = ("mean", "std", "value_scale", "band_order")
"""Keys of a safetensors file's metadata, and of a hub repository's ``pretrained_cfg``; values are JSON."""
REMEDY = (
    "Correct the file's metadata, or state model.mean, model.std, model.value_scale and model.band_order."
)
Triple = tuple[float, float, float]
IMAGENET_MEAN: Triple = IMAGENET_DEFAULT_MEAN
IMAGENET_STD: Triple = IMAGENET_DEFAULT_STD


@dataclass(frozen=True)
class InputStatistics:
    """What a network expects of its input: ``(pixels * value_scale - mean) / std``, pixels in [0, 1].

    Args:
        mean: mean per band, in the order ``band_order`` and the unit of ``value_scale``.
        std: standard deviation per band, above 0, likewise.
        value_scale: largest pixel value, above 0: 1 or 255 as a rule.
        band_order: order of the bands.
    """

    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    value_scale: float = 1.0
    band_order: Literal["rgb", "bgr"] = "rgb"

    def scale_and_offset(self) -> tuple[Tensor, Tensor]:
        """Scale and offset (C, 1, 1) that turn ImageNet-normalized bands, in ``band_order``, into these."""
        imagenet_mean_C, imagenet_std_C = (
            torch.tensor(v).flip(0) if self.band_order == "bgr" else torch.tensor(v)
            for v in (IMAGENET_MEAN, IMAGENET_STD)
        )
        mean_C, std_C = torch.tensor(self.mean), torch.tensor(self.std)
        scale_C = imagenet_std_C * self.value_scale / std_C
        return scale_C[:, None, None], ((imagenet_mean_C * self.value_scale - mean_C) / std_C)[:, None, None]

    def with_config(self, config: ModelConfig) -> Self:
        """The same with the fields that ``config`` states."""
        given = {name: getattr(config, name) for name in METADATA_KEYS}
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def to_metadata(self) -> dict[str, str]:
        """The statistics as metadata of a safetensors file."""
        return {name: json.dumps(getattr(self, name)) for name in METADATA_KEYS}

    @property
    def text(self) -> str:
        """The statistics in words, for the log."""
        mean, std = ("/".join(f"{value:.4g}" for value in triple) for triple in (self.mean, self.std))
        return f"mean {mean}, deviation {std}, {self.band_order.upper()} in [0, {self.value_scale:g}]"


def timm_statistics(pretrained_cfg: Any, thing: str) -> InputStatistics:
    """What timm says of a network's weights.

    Args:
        pretrained_cfg: timm's ``pretrained_cfg`` as a mapping, of a model or from a hub's ``config.json``.
        thing: name of its place; used in the error message.

    Raises:
        ConfigError: when a value cannot be used.
    """
    found = {name: pretrained_cfg.get(name) for name in METADATA_KEYS}
    return _checked({name: value for name, value in found.items() if value is not None}, thing)


def metadata_statistics(metadata: Mapping[str, str], thing: str) -> InputStatistics | None:
    """What the metadata of a safetensors file says; None when it says nothing.

    Raises:
        ConfigError: when a value cannot be used.
    """
    given: dict[str, Any] = {}
    for name in METADATA_KEYS:
        if name not in metadata:
            continue
        try:
            given[name] = json.loads(metadata[name])
        except ValueError:
            given[name] = metadata[name]  # a plain word, such as bgr
    return _checked(given, thing) if given else None


def _checked(given: dict[str, Any], thing: str) -> InputStatistics:
    values = dict(given)
    if values and not {"mean", "std"} <= set(values):
        raise ConfigError(thing, "must state mean and std together", f"only {', '.join(values)}", REMEDY)
    for name in ("mean", "std"):
        if name in values:
            values[name] = _triple(values[name], f"{thing}: {name}", above_zero=name == "std")
    if "value_scale" in values and not (_is_number(values["value_scale"]) and values["value_scale"] > 0):
        raise ConfigError(f"{thing}: value_scale", "must be a number above 0", values["value_scale"], REMEDY)
    if "band_order" in values:
        order = str(values["band_order"]).lower()
        if order not in {"rgb", "bgr"}:
            raise ConfigError(f"{thing}: band_order", "must be rgb or bgr", values["band_order"], REMEDY)
        values["band_order"] = order
    return InputStatistics(**values)


def _triple(value: Any, thing: str, above_zero: bool) -> Triple:
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    if len(numbers) != BANDS:
        remedy = "Take weights for RGB images, or those of the three bands that you use."
        raise ConfigError(thing, f"must be for {BANDS} bands", f"{len(numbers)} values", remedy)
    if not all(_is_number(n) and (n > 0 or not above_zero) for n in numbers):
        need = "must be finite numbers" + (" above 0" if above_zero else "")
        raise ConfigError(thing, need, value, REMEDY)
    return cast(Triple, tuple(float(n) for n in numbers))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
