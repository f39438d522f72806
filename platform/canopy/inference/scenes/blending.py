"""From probabilities of overlapping windows to those of cells: averages weighted by a window function.

A window knows its middle best: near its border it sees half of an object. The weight of a window for a cell
is the integral of Hann's window, sin² of the position across the window, over the cell, in both directions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

LEAST_WEIGHT = 1e-3
"""Added to each weight, in shares of the window's whole, so that a cell at the border of a scene, seen by one
window's border alone, has a value."""


def window_weights(size: int, stride: int) -> NDArray[np.float64]:
    """Weight of a window for each of the cells that it covers along one direction, sum 1.

    Args:
        size: side of a window, pixels.
        stride: side of a cell, pixels.
    """
    edges = np.minimum(np.arange(-(-size // stride) + 1) * stride, size) / size
    integral = edges / 2 - np.sin(2 * np.pi * edges) / (4 * np.pi)
    weights = np.diff(integral) * 2 + LEAST_WEIGHT
    return np.asarray(weights / weights.sum())


def blend(
    probs_HWK: NDArray[np.float32], weights: NDArray[np.float64], first_row: int, rows: int, columns: int
) -> NDArray[np.float32]:
    """Probabilities of cells, float32 (rows, columns, K); NaN where no window has any.

    Args:
        probs_HWK: probabilities of windows that begin at cell column 0; NaN for windows without data.
        weights: of :func:`window_weights`.
        first_row: row of the first window, counted from the first row of cells wanted; 0 or negative.
        rows: rows of cells.
        columns: columns of cells.
    """
    known_HW = np.asarray(np.isfinite(probs_HWK).all(-1))
    values_HWK = np.where(known_HW[..., None], probs_HWK, 0).astype(np.float64)
    total_HWK = np.zeros((rows, columns, probs_HWK.shape[2]))
    weight_HW = np.zeros((rows, columns))
    for down, vertical in enumerate(weights):
        start = first_row + down  # row of cells that the first row of windows gives to
        skip, end = max(0, -start), min(len(probs_HWK), rows - start)
        if end <= skip:
            continue
        for right, horizontal in enumerate(weights):
            count = min(probs_HWK.shape[1], columns - right)
            if count <= 0:
                continue
            target = np.s_[start + skip : start + end, right : right + count]
            weight = vertical * horizontal
            total_HWK[target] += weight * values_HWK[skip:end, :count]
            weight_HW[target] += weight * known_HW[skip:end, :count]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight_HW[..., None] > 0, total_HWK / weight_HW[..., None], np.nan).astype(np.float32)


def windows_of(pixels_HWC: NDArray[Any], size: int, stride: int, shape: tuple[int, int]) -> NDArray[Any]:
    """The windows of an array as a view, (rows, columns, size, size, C).

    Args:
        pixels_HWC: pixels of all windows of a block.
        size: side of a window.
        stride: their distance.
        shape: rows and columns of windows.
    """
    view = sliding_window_view(pixels_HWC, (size, size), axis=(0, 1))[::stride, ::stride]
    return np.moveaxis(view[: shape[0], : shape[1]], 2, -1)


def cell_shares(valid_HW: NDArray[np.bool_], stride: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Share of valid pixels in each cell of a block, float32 of the given shape.

    Args:
        valid_HW: whether each pixel has data, without those beyond the scene.
        stride: side of a cell.
        shape: rows and columns of cells; those beyond the pixels have the share 0.
    """
    rows, columns = -(-valid_HW.shape[0] // stride), -(-valid_HW.shape[1] // stride)
    row_starts, column_starts = np.arange(rows) * stride, np.arange(columns) * stride
    sums = np.add.reduceat(np.add.reduceat(valid_HW.astype(np.float32), row_starts, 0), column_starts, 1)
    heights = np.diff(np.append(row_starts, valid_HW.shape[0]))
    widths = np.diff(np.append(column_starts, valid_HW.shape[1]))
    out = np.zeros(shape, np.float32)
    part = np.s_[: min(rows, shape[0]), : min(columns, shape[1])]
    out[part] = (sums / np.outer(heights, widths))[part]
    return out


def mirrored(pixels_HWC: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Pixels enlarged at the bottom and the right to (height, width, …), the image mirrored there."""
    down, right = height - pixels_HWC.shape[0], width - pixels_HWC.shape[1]
    if not (down or right):
        return pixels_HWC
    return np.pad(pixels_HWC, [(0, down), (0, right)] + [(0, 0)] * (pixels_HWC.ndim - 2), mode="symmetric")


def filled(chips_nHWC: NDArray[Any], valid_nHW: NDArray[np.bool_]) -> NDArray[Any]:
    """Chips whose pixels without data have the mean of their own valid pixels, band by band."""
    out = chips_nHWC.copy()
    for chip_HWC, valid_HW in zip(out, valid_nHW, strict=True):
        if not valid_HW.all() and valid_HW.any():
            chip_HWC[~valid_HW] = np.rint(chip_HWC[valid_HW].mean(0)).astype(chip_HWC.dtype)
    return out
