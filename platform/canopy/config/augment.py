"""What happens to a training chip, and the augmentations that have a name."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from canopy.config.section import PLACE, Fraction, Section


class AugmentConfig(Section):
    """What happens to a training chip; each parameter is drawn per image."""

    RENAMED: ClassVar = {"greyscale": "grayscale"}

    flips: bool = True
    """The eight symmetries of the square (an aerial image has no up)."""
    crop_padding: int = Field(default=0, ge=0, le=64)
    """Reflect-pad by this many pixels, then crop the original size at random."""
    crop: int | None = Field(default=None, ge=8, le=1024)
    """Train on a random square of this many pixels a side, evaluate on the middle one; None takes all."""
    rotate_degrees: float = Field(default=0, ge=0, le=180)
    """Rotation by a uniform angle in ± this, reflected at the border."""
    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    saturation: Fraction = 0.0
    hue: float = Field(default=0, ge=0, le=0.5)
    """Jitter, as in torchvision's ColorJitter: factors in [1 - x, 1 + x], hue shift in [-x, x] turns."""
    grayscale: Fraction = 0.0
    """Chance of losing all colour."""
    blur: Fraction = 0.0
    """Chance of a 3x3 gaussian blur with sigma in [0.1, 2]."""
    mixup_alpha: float = Field(default=0, ge=0)
    """Mixup's Beta(a, a); 0 turns it off."""
    cutmix_alpha: float = Field(default=0, ge=0)
    """CutMix's Beta(a, a); 0 turns it off."""
    cutmix_labels: Literal["area", "union"] = "area"
    """Labels of the two chips weighted by their areas, or both kept whole."""
    place: Literal["data", "device"] = Field(default="data", json_schema_extra=PLACE)
    """Run in the Ray Data stream or on the training device; for one seed both give equal batches."""

    @model_validator(mode="after")
    def _one_way_to_crop(self) -> Self:
        if self.crop is not None and self.crop_padding:
            raise ValueError(
                "augment.crop_padding must be 0 when augment.crop is set: both shift the image at random. "
                f"Got: {self.crop_padding} and crop {self.crop}. Drop one."
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
"""Augmentations by name; ``enhanced`` is the strong colour set, with any angle within ±90°."""
