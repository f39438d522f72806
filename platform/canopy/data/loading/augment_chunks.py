"""Reads or gathers chips into a batch array and augments them, in chunks that fit into the processor's cache.

A batch of 64 chips of 256 pixels has 12 MB. Decoded as a whole and then augmented as a whole, it would go
to main memory and back between any two steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from canopy.data.transforms.augment import AugmentParams, apply_augmentation
from canopy.data.transforms.geometric import apply_geometry_cpu

CHUNK_BYTES = 1 << 20
"""Maximum size of a chunk of chips in bytes."""

ReadChips = Callable[[slice, NDArray[Any]], None]
"""Function of a slice of the batch and an array (n, size, size, C) that writes the slice's chips to the
array."""


def chunk_slices(count: int, chip_bytes: int) -> list[slice]:
    """Slices over ``count`` chips of ``chip_bytes`` each, of ``CHUNK_BYTES`` or one chip."""
    step = max(1, CHUNK_BYTES // chip_bytes)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def read_and_augment(
    out_NHWC: NDArray[Any], size: int, params: AugmentParams | None, read: ReadChips
) -> None:
    """Read and augment N chips, chunk by chunk.

    Args:
        out_NHWC: receives the images: uint8 or uint16, contiguous, of the size that ``params`` give.
        size: height and width of the chips that ``read`` delivers.
        params: augmentation parameters of the N images; None reads the chips directly into ``out_NHWC``.
        read: delivers the chips.
    """
    channels, dtype = out_NHWC.shape[3], out_NHWC.dtype
    parts = chunk_slices(len(out_NHWC), size * size * channels * dtype.itemsize)
    if params is None:
        for part in parts:
            read(part, out_NHWC[part])
        return
    raw_NHWC = np.empty((parts[0].stop if parts else 0, size, size, channels), dtype)
    for part in parts:
        raw_nHWC = raw_NHWC[: part.stop - part.start]
        read(part, raw_nHWC)
        apply_augmentation(torch.from_numpy(raw_nHWC), params[part], torch.from_numpy(out_NHWC[part]))


def gather_and_augment(
    out_NHWC: NDArray[Any],
    chips_MHWC: NDArray[Any],
    rows_N: NDArray[np.int64],
    params: AugmentParams | None,
) -> None:
    """Gather and augment N decoded chips; each is copied once if pixels only move.

    Args:
        out_NHWC: receives the images: uint8 or uint16, contiguous, of the size that ``params`` give.
        chips_MHWC: all chips, of the type of ``out_NHWC``.
        rows_N: row numbers of the N chips in ``chips_MHWC``.
        params: augmentation parameters of the N images; None copies the chips.
    """
    if params is not None and not params.computes_pixels:
        geometry = params.symmetry_N, params.shift_N2, params.position_N2
        apply_geometry_cpu(chips_MHWC, rows_N, *geometry, out_NHWC)
        return

    def read(part: slice, out_nHWC: NDArray[Any]) -> None:
        chips_MHWC.take(rows_N[part], axis=0, out=out_nHWC, mode="clip")  # other modes make a copy

    read_and_augment(out_NHWC, chips_MHWC.shape[1], params, read)
