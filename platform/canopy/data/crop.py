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
    room = np.array([height - size + 1, width - size + 1])
    corners_N2 = np.floor(place_N2 * room).astype(np.int64).tolist()
    squares = zip(images_NHWC, corners_N2, strict=True)
    return torch.stack([image[top : top + size, left : left + size] for image, (top, left) in squares])


def middle(images_NHWC: Tensor, size: int | None) -> Tensor:
    """Of each image the square of ``size`` pixels in the middle; None leaves them."""
    if size is None:
        return images_NHWC
    _, height, width, _ = images_NHWC.shape
    assert size <= min(height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return images_NHWC[:, top : top + size, left : left + size].contiguous()
