"""Augmentation of training chips, and the named augmentations."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from canopy.config.section import FINGERPRINTED_IF_SET, NOT_FINGERPRINTED, Fraction, Section
from canopy.errors import ConfigError


class AugmentConfig(Section):
    """Augmentation of training chips; all parameters are drawn per image."""

    RENAMED: ClassVar = {"greyscale": "grayscale"}
    COLOR_STEPS: ClassVar = ("saturation", "hue", "grayscale")
    """Steps that are defined for red, green and blue alone; with ``data.bands`` they change those bands."""

    flips: bool = True
    """Flip and rotate by multiples of 90°: one of the eight symmetries of the square, drawn uniformly."""
    crop_padding: int = Field(default=0, ge=0, le=64)
    """Pad each side by 0 to 64 pixels (reflected), then crop a random square of the original size."""
    crop: int | None = Field(default=None, ge=8, le=1024)
    """Train on random squares of this side, 8 to 1024 pixels, and evaluate on the center; None: no crop."""
    rotate_degrees: float = Field(default=0, ge=0, le=180)
    """Rotate by an angle drawn uniformly from ± this many degrees, 0 to 180, with reflected borders."""
    brightness: Fraction = 0.0
    """Brightness jitter as in torchvision's ColorJitter: a factor drawn from [1 - x, 1 + x]; 0 to 1."""
    contrast: Fraction = 0.0
    """Contrast jitter as in torchvision's ColorJitter: a factor drawn from [1 - x, 1 + x]; 0 to 1."""
    saturation: Fraction = 0.0
    """Saturation jitter as in torchvision's ColorJitter: a factor drawn from [1 - x, 1 + x]; 0 to 1."""
    hue: float = Field(default=0, ge=0, le=0.5)
    """Hue jitter as in torchvision's ColorJitter: a shift drawn from [-x, x], in full turns; 0 to 0.5."""
    grayscale: Fraction = 0.0
    """Probability of converting the chip to grayscale, 0 to 1."""
    blur: Fraction = 0.0
    """Probability of a 3x3 Gaussian blur with a sigma from 0.1 to 2 pixels, 0 to 1."""
    band_dropout: Fraction = Field(default=0.0, json_schema_extra=FINGERPRINTED_IF_SET)
    """Probability with which each band of ``data.bands`` is replaced by its mean over the chip, 0 to 1."""
    noise: Fraction = Field(default=0.0, json_schema_extra=FINGERPRINTED_IF_SET)
    """Noise of each pixel and band: its standard deviation, in those of the band over the chip, is drawn from
    [0, x] for each band; 0 to 1."""
    mixup_alpha: float = Field(default=0, ge=0)
    """Parameter a of the Beta(a, a) distribution of mixup's weights, 0 or more; 0 turns mixup off."""
    cutmix_alpha: float = Field(default=0, ge=0)
    """Parameter a of the Beta(a, a) distribution of CutMix's areas, 0 or more; 0 turns CutMix off."""
    cutmix_labels: Literal["area", "union"] = "area"
    """Labels of a CutMix chip: ``area`` weights both label sets by their areas, ``union`` keeps all at 1."""
    place: Literal["data", "device"] = Field(default="data", json_schema_extra=NOT_FINGERPRINTED)
    """Where to augment: in the data pipeline (CPU) or on the training device; both give equal batches."""

    @model_validator(mode="after")
    def _only_one_kind_of_crop(self) -> Self:
        if self.crop is not None and self.crop_padding:
            raise ConfigError(
                "augment.crop_padding",
                "must be 0 when augment.crop is set: both shift the image at random",
                f"{self.crop_padding} and crop {self.crop}",
                "Drop one.",
            )
        return self


AugmentName = Literal["none", "flips", "crops", "enhanced"]

AUGMENT_PRESETS: dict[AugmentName, AugmentConfig] = {
    "none": AugmentConfig(flips=False),
    "flips": AugmentConfig(),
    "crops": AugmentConfig(crop_padding=6),
    "enhanced": AugmentConfig(
        rotate_degrees=90,
        brightness=0.3,
        contrast=0.3,
        saturation=0.3,
        hue=0.15,
        grayscale=0.1,
        blur=0.2,
    ),
}
"""Augmentations by name; ``enhanced`` is strong color jitter with rotation by any angle within ±90°."""
