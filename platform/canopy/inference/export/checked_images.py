"""The images on which an exported graph is compared with the model, and the batches that it gets them in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from canopy.bands import BandStatistics
    from canopy.inference.export.quantize import StoredChips

CHECKED_IMAGES = 48
"""Images on which each graph is compared with the model; a batch of one among them."""


def check_images(stored: StoredChips | None, size: int, bands: BandStatistics | None = None) -> NDArray[Any]:
    """Images for comparisons: val chips where there are any, noise and flat colors.

    Args:
        stored: chips of the run.
        size: their height and width S.
        bands: their bands; None for RGB.

    Returns:
        Images (N, S, S, C), uint8, or of the bands' type.
    """
    if bands is not None:
        return _band_images(stored, size, bands)
    generator = np.random.default_rng(0)
    noise_NHWC = generator.integers(0, 256, (6, size, size, 3), dtype=np.uint8)
    coarse_NHWC = generator.integers(0, 256, (CHECKED_IMAGES, 4, 4, 3), dtype=np.uint8)
    smooth = torch.from_numpy(coarse_NHWC).permute(0, 3, 1, 2).float()
    smooth = torch.nn.functional.interpolate(smooth, (size, size), mode="bilinear", align_corners=False)
    parts = [noise_NHWC, np.zeros((1, size, size, 3), np.uint8), np.full((1, size, size, 3), 255, np.uint8)]
    if stored is not None:
        parts.append(stored.measured_NHWC[: CHECKED_IMAGES - 8])
    parts.append(smooth.permute(0, 2, 3, 1).byte().numpy())
    return np.ascontiguousarray(np.concatenate(parts)[:CHECKED_IMAGES])


def _band_images(stored: StoredChips | None, size: int, bands: BandStatistics) -> NDArray[Any]:
    """Images of C bands.

    What is made up lies between the percentiles of each band: levels that no chip has would compare networks
    at activations that they never have.
    """
    generator, channels = np.random.default_rng(0), len(bands.names)
    low_C, high_C = np.array(bands.low), np.array(bands.high)

    def levels(shares_NHWC: NDArray[Any]) -> NDArray[Any]:
        levels_NHWC: NDArray[Any] = np.rint(low_C + shares_NHWC * (high_C - low_C)).astype(bands.dtype)
        return levels_NHWC

    coarse_NHWC = generator.random((CHECKED_IMAGES, 4, 4, channels), np.float32)
    smooth = torch.from_numpy(coarse_NHWC).permute(0, 3, 1, 2)
    smooth = torch.nn.functional.interpolate(smooth, (size, size), mode="bilinear", align_corners=False)
    flat_NHWC = np.zeros((2, size, size, channels), np.float32)
    flat_NHWC[1] = 1
    parts = [
        levels(generator.random((5, size, size, channels), np.float32)),
        levels(flat_NHWC),
        np.zeros((1, size, size, channels), bands.dtype),
    ]
    if stored is not None:
        parts.append(stored.measured_NHWC[: CHECKED_IMAGES - 8])
    parts.append(levels(smooth.permute(0, 2, 3, 1).numpy()))
    return np.ascontiguousarray(np.concatenate(parts)[:CHECKED_IMAGES])


def batches(count: int) -> Iterable[slice]:
    """Parts of ``count`` images: a single one first, so that a graph with a fixed batch is found out."""
    yield slice(0, 1)
    for start in range(1, count, 16):
        yield slice(start, min(start + 16, count))
