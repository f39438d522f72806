"""Square crops alone: at random positions for training, in the center for evaluation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def crop_at(images_NHWC: Tensor, size: int, position_N2: NDArray[np.float64]) -> Tensor:
    """Crop a square from each image, at its own position.

    Args:
        images_NHWC: images, at least ``size`` pixels high and wide.
        size: height and width of the crop in pixels.
        position_N2: position of the crop, down and to the right, in [0, 1): 0 is the first possible corner,
            values near 1 are the last.

    Returns:
        Crops of shape (N, size, size, 3).
    """
    _, height, width, _ = images_NHWC.shape
    assert size <= min(height, width)
    squares = zip(images_NHWC, crop_corners(position_N2, size, size, height, width), strict=True)
    return torch.stack([image[top : top + size, left : left + size] for image, (top, left) in squares])


def crop_corners(
    position_N2: NDArray[np.float64], crop_height: int, crop_width: int, height: int, width: int
) -> list[list[int]]:
    """Top and left of each crop in pixels, for positions in [0, 1)."""
    room = np.array([height - crop_height + 1, width - crop_width + 1])
    assert room.min() > 0
    found: list[list[int]] = np.floor(position_N2 * room).astype(np.int64).tolist()
    return found


def center_crop(images_NHWC: Tensor, size: int | None) -> Tensor:
    """Crop the central square of ``size`` pixels from each image; None returns the images unchanged."""
    if size is None:
        return images_NHWC
    _, height, width, _ = images_NHWC.shape
    assert size <= min(height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return images_NHWC[:, top : top + size, left : left + size].contiguous()
