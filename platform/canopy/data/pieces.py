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

from canopy.data.augment import AugmentParams, apply

AT_ONCE_BYTES = 1 << 20
"""Chips of a piece."""

Read = Callable[[slice, NDArray[np.uint8]], None]
"""Writes the chips of a part of the batch to where they are wanted, (n, size, size, 3)."""


def pieces(count: int, size: int) -> list[slice]:
    """``count`` chips of ``size`` pixels a side in parts of ``AT_ONCE_BYTES`` or one chip."""
    step = max(1, AT_ONCE_BYTES // (size * size * 3))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def augment_into(out_NHWC: NDArray[np.uint8], size: int, params: AugmentParams | None, read: Read) -> None:
    """Chips read and augmented, each piece as soon as it is read.

    Args:
        out_NHWC: where the N images go; uint8, contiguous, as large as ``params`` make them.
        size: height and width of the chips as they are read.
        params: of the N images; None leaves them as they are, and they are read straight into their places.
        read: brings the chips.
    """
    parts = pieces(len(out_NHWC), size)
    if params is None:
        for part in parts:
            read(part, out_NHWC[part])
        return
    raw_NHWC = np.empty((parts[0].stop if parts else 0, size, size, 3), np.uint8)
    for part in parts:
        raw_nHWC = raw_NHWC[: part.stop - part.start]
        read(part, raw_nHWC)
        apply(torch.from_numpy(raw_nHWC), params[part], torch.from_numpy(out_NHWC[part]))
