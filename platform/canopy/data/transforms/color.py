"""Color transforms of whole batches, with factors per image.

Each has the definition of torchvision (``transforms.v2.functional.adjust_brightness`` and so on). Values
are floats of any scale; nothing is clipped between the steps.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in the luma, as in torchvision and ITU-R BT.601."""


def color_matrix(
    brightness_N: NDArray[np.float64], contrast_N: NDArray[np.float64], saturation_N: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Combine brightness, contrast and saturation into one affine map per image.

    Brightness scales; contrast blends with the image's mean luma; saturation blends each pixel with its own
    luma; in this order. Saturation does not change gray values, so it commutes with the offset of contrast.

    Args:
        brightness_N: factors >= 0, shape (N,); 1 changes nothing.
        contrast_N: factors >= 0, shape (N,); 1 changes nothing.
        saturation_N: factors >= 0, shape (N,); 1 changes nothing.

    Returns:
        Matrix (N, 3, 3) for RGB columns, and share of the image's mean luma to add (N,).
    """
    luma_33 = np.tile(np.array(LUMA) / sum(LUMA), (3, 1))
    saturation_N11 = saturation_N[:, None, None]
    color_N33 = saturation_N11 * np.eye(3) + (1 - saturation_N11) * luma_33
    scale_N = brightness_N * contrast_N
    mean_luma_N = brightness_N * (1 - contrast_N)
    return (scale_N[:, None, None] * color_N33).astype(np.float32), mean_luma_N.astype(np.float32)


def apply_color_matrix(
    x_NCHW: Tensor, color_N33: NDArray[np.float32], mean_luma_N: NDArray[np.float32] | None
) -> Tensor:
    """Multiply each image's pixels by its matrix, and add its share of its mean luma.

    Args:
        x_NCHW: images, shape (N, 3, H, W).
        color_N33: a matrix per image, shape (N, 3, 3).
        mean_luma_N: share of the image's mean luma, shape (N,); None for none.
    """
    red, green, blue = (x_NCHW[:, c : c + 1] for c in range(3))
    matrix = torch.from_numpy(color_N33).to(x_NCHW.device, non_blocking=True)[:, :, :, None, None]
    out_NCHW = matrix[:, :, 0] * red
    out_NCHW.addcmul_(matrix[:, :, 1], green).addcmul_(matrix[:, :, 2], blue)
    if mean_luma_N is None:
        return out_NCHW
    mean_N = (x_NCHW.mean(dim=(2, 3)) * _weights(x_NCHW.device)).sum(dim=1)
    added_N = torch.from_numpy(mean_luma_N).to(x_NCHW.device, non_blocking=True) * mean_N
    return out_NCHW.add_(added_N[:, None, None, None])


def adjust_hue(x_NCHW: Tensor, shift_N: NDArray[np.float32]) -> Tensor:
    """Shift the hue of each image in HSV by ``shift_N`` turns, in [-1, 1].

    With the hue h in [0, 6), each channel is the lowest channel plus the chroma (highest minus lowest)
    times a function of h, clipped to [0, 1]: |h - 3| - 1 for red, 2 - |h - 2| for green, 2 - |h - 4| for
    blue. The lowest and highest channel do not change, so only h is computed; no image is converted to HSV
    and back.
    """
    red, green, blue = x_NCHW.unbind(1)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    per_chroma = chroma.clamp(min=1e-6).reciprocal_()  # a gray pixel has no hue; any value serves
    start = (6 * torch.from_numpy(shift_N).to(x_NCHW.device, non_blocking=True) + 6)[:, None, None]
    h = torch.where(
        high == red,
        torch.addcmul(start, green - blue, per_chroma),
        torch.where(
            high == green,
            torch.addcmul(start + 2, blue - red, per_chroma),
            torch.addcmul(start + 4, red - green, per_chroma),
        ),
    )
    h.sub_(h.div(6).floor_(), alpha=6)  # the remainder; torch.remainder takes three times as long
    out_NCHW = torch.empty_like(x_NCHW)
    torch.addcmul(low, chroma, (h - 3).abs_().sub_(1).clamp_(0, 1), out=out_NCHW[:, 0])
    torch.addcmul(high, chroma, (h - 2).abs_().sub_(1).clamp_(0, 1), value=-1, out=out_NCHW[:, 1])
    torch.addcmul(high, chroma, h.sub_(4).abs_().sub_(1).clamp_(0, 1), value=-1, out=out_NCHW[:, 2])
    return out_NCHW


def to_grayscale(x_NCHW: Tensor, gray_N: NDArray[np.bool_]) -> Tensor:
    """Replace all channels of the images with ``gray_N`` by their luma, in place."""
    chosen = np.flatnonzero(gray_N)
    if len(chosen) == 0:
        return x_NCHW
    index = torch.from_numpy(chosen).to(x_NCHW.device, non_blocking=True)
    part = x_NCHW[index]
    luma = (part * _weights(part.device)[:, None, None]).sum(dim=1, keepdim=True)
    return x_NCHW.index_copy_(0, index, luma.expand_as(part))


@lru_cache(maxsize=4)
def _weights(device: torch.device) -> Tensor:
    return torch.tensor(LUMA, device=device) / sum(LUMA)
