"""Colors that show a map of signed values over an image."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

WARM, COOL = (255, 138, 20), (40, 110, 255)
"""RGB of positive and of negative positions."""
COVER = 0.7
"""Opacity of the strongest color."""


def tint(tile_HWC: NDArray[np.uint8], values_hw: NDArray[np.float32], strongest: float) -> NDArray[np.uint8]:
    """A tile in gray, (H, W, 3) uint8, tinted warm where ``values_hw`` is positive, else cool.

    Args:
        tile_HWC: uint8 RGB.
        values_hw: value of each position, of the tile's size or smaller; interpolated
            bilinearly to the tile.
        strongest: magnitude of the full color, > 0.
    """
    small = torch.from_numpy(values_hw)[None, None]
    large = torch.nn.functional.interpolate(small, tile_HWC.shape[:2], mode="bilinear", align_corners=False)
    share_HW = np.clip(large[0, 0].numpy() / strongest, -1, 1)
    gray_HW1 = (tile_HWC @ np.array([0.299, 0.587, 0.114]))[..., None]
    color_HW3 = np.where(share_HW[..., None] > 0, WARM, COOL)
    cover_HW1 = COVER * np.abs(share_HW)[..., None]
    mixed_HW3: NDArray[np.uint8] = np.rint(gray_HW1 * (1 - cover_HW1) + color_HW3 * cover_HW1).astype(
        np.uint8
    )
    return mixed_HW3
