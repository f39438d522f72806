"""Batches made piece by piece, each piece small enough to stay in the processor's cache.

A batch of 64 chips of 256 pixels is 12 MB: made whole, then augmented whole, it goes out to memory and comes
back between any two steps. Where decoding takes half a millisecond a chip, each such journey costs a tenth
of it, and memory that is touched for the first time several times that.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from canopy.data.transforms.augment import AugmentParams, apply_augmentation
from canopy.data.transforms.geometric import apply_geometry_cpu

CHUNK_BYTES = 1 << 20
"""Chips of a piece."""

Read = Callable[[slice, NDArray[np.uint8]], None]
"""Writes the chips of a part of the batch to where they are wanted, (n, size, size, 3)."""


def chunk_slices(count: int, size: int) -> list[slice]:
    """``count`` chips of ``size`` pixels a side in parts of ``CHUNK_BYTES`` or one chip."""
    step = max(1, CHUNK_BYTES // (size * size * 3))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def augment_into(out_NHWC: NDArray[np.uint8], size: int, params: AugmentParams | None, read: Read) -> None:
    """Chips read and augmented, each piece as soon as it is read.

    Args:
        out_NHWC: where the N images go; uint8, contiguous, as large as ``params`` make them.
        size: height and width of the chips as they are read.
        params: of the N images; None leaves them as they are, and they are read straight into their places.
        read: brings the chips.
    """
    parts = chunk_slices(len(out_NHWC), size)
    if params is None:
        for part in parts:
            read(part, out_NHWC[part])
        return
    raw_NHWC = np.empty((parts[0].stop if parts else 0, size, size, 3), np.uint8)
    for part in parts:
        raw_nHWC = raw_NHWC[: part.stop - part.start]
        read(part, raw_nHWC)
        apply_augmentation(torch.from_numpy(raw_nHWC), params[part], torch.from_numpy(out_NHWC[part]))


def gather_into(
    out_NHWC: NDArray[np.uint8],
    chips_MHWC: NDArray[np.uint8],
    rows_N: NDArray[np.int64],
    params: AugmentParams | None,
) -> None:
    """Chips that are decoded already, augmented; moved straight to their places where that is all.

    Args:
        out_NHWC: where the N images go; uint8, contiguous, as large as ``params`` make them.
        chips_MHWC: all chips, uint8.
        rows_N: which of them.
        params: of the N images; None leaves them as they are.
    """
    if params is not None and not params.compute:
        apply_geometry_cpu(chips_MHWC, rows_N, params.symmetry_N, params.shift_N2, params.place_N2, out_NHWC)
        return

    def read(part: slice, place_nHWC: NDArray[np.uint8]) -> None:
        chips_MHWC.take(rows_N[part], axis=0, out=place_nHWC, mode="clip")  # other modes copy once more

    augment_into(out_NHWC, chips_MHWC.shape[1], params, read)
