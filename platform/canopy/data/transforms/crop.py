"""Squares cut out of chips: anywhere for training, in the middle for evaluation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def crop_at(images_NHWC: Tensor, size: int, place_N2: NDArray[np.float64]) -> Tensor:
    """Of each image the square of ``size`` pixels whose corner lies at its place, shape (N, size, size, 3).

    Args:
        images_NHWC: at least ``size`` pixels high and wide.
        size: in pixels.
        place_N2: down and to the right, in [0, 1): 0 is the first possible corner, nearly 1 the last.
    """
    _, height, width, _ = images_NHWC.shape
    assert size <= min(height, width)
    squares = zip(images_NHWC, crop_corners(place_N2, size, size, height, width), strict=True)
    return torch.stack([image[top : top + size, left : left + size] for image, (top, left) in squares])


def crop_corners(
    place_N2: NDArray[np.float64], cut_height: int, cut_width: int, height: int, width: int
) -> list[list[int]]:
    """Top and left of each cut: ``place_N2``, in [0, 1), is its share of the room that it has, in pixels."""
    room = np.array([height - cut_height + 1, width - cut_width + 1])
    assert room.min() > 0
    found: list[list[int]] = np.floor(place_N2 * room).astype(np.int64).tolist()
    return found


def center_crop(images_NHWC: Tensor, size: int | None) -> Tensor:
    """Of each image the square of ``size`` pixels in the middle; None leaves them."""
    if size is None:
        return images_NHWC
    _, height, width, _ = images_NHWC.shape
    assert size <= min(height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return images_NHWC[:, top : top + size, left : left + size].contiguous()
