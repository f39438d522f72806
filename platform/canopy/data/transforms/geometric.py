"""Crop, shift and D4 symmetry (flips and quarter turns) in one pass; pixel values do not change.

Two implementations give the same pixels: on a CPU each image is copied once, from its source to its target;
on a GPU one gather moves the whole batch. OpenCV does the flips and turns on a CPU, because numpy is slow
with pixels of three bytes.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from canopy.data.transforms.crop import crop_at, crop_corners

cv2.setNumThreads(1)  # each data task has one core

CV_PIXEL_BYTES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Sizes of a pixel in bytes that OpenCV can transpose; others are turned by numpy."""
FLIP_CODES = {1: 1, 2: 0, 3: -1}
"""OpenCV's flip code of an element of D4."""
ROTATE_CODES = {5: cv2.ROTATE_90_COUNTERCLOCKWISE, 6: cv2.ROTATE_90_CLOCKWISE}


def apply_geometry(
    images_NHWC: Tensor,
    symmetry_N: NDArray[np.int64] | None,
    shift_N2: NDArray[np.int64] | None = None,
    position_N2: NDArray[np.float64] | None = None,
    crop: int | None = None,
    out_NHWC: Tensor | None = None,
) -> Tensor:
    """Crop or shift each image, then flip and turn it; all parameters are per image.

    Images must be square if a symmetry transposes them.

    Args:
        images_NHWC: uint8 or uint16 (N, H, W, C).
        symmetry_N: elements of D4: bit 0 flips left-right, bit 1 flips top-bottom, bit 2 transposes after
            the flips. None for no flips.
        shift_N2: shift down and to the right in pixels; missing pixels are reflected. None for no shift.
        position_N2: position of the crop, down and to the right, in [0, 1). None without a crop.
        crop: height and width of the crop in pixels. None without a crop.
        out_NHWC: on a CPU, array for the result; None allocates one.

    Returns:
        ``out_NHWC``; without it, new images, or ``images_NHWC`` itself if no step is requested.
    """
    assert (crop is None) == (position_N2 is None)
    if symmetry_N is None and shift_N2 is None and crop is None:
        return images_NHWC if out_NHWC is None else out_NHWC.copy_(images_NHWC)
    count, height, width, channels = images_NHWC.shape
    if images_NHWC.device.type == "cpu":
        if out_NHWC is None:
            side = (height, width) if crop is None else (crop, crop)
            out_NHWC = torch.empty((count, *side, channels), dtype=images_NHWC.dtype)
        apply_geometry_cpu(
            images_NHWC.numpy(), np.arange(count), symmetry_N, shift_N2, position_N2, out_NHWC.numpy()
        )
        return out_NHWC
    if crop is not None and position_N2 is not None:
        images_NHWC = crop_at(images_NHWC, crop, position_N2)
    return apply_geometry_gpu(images_NHWC, symmetry_N, shift_N2)


def apply_geometry_cpu(
    images_MHWC: NDArray[Any],
    rows_N: NDArray[np.int64],
    symmetry_N: NDArray[np.int64] | None,
    shift_N2: NDArray[np.int64] | None,
    position_N2: NDArray[np.float64] | None,
    out_NHWC: NDArray[Any],
) -> None:
    """Apply :func:`apply_geometry` on a CPU to selected images; each image is read and written once.

    Args:
        images_MHWC: all images.
        rows_N: row numbers of the selected images; may repeat.
        symmetry_N: see :func:`apply_geometry`.
        shift_N2: see :func:`apply_geometry`.
        position_N2: see :func:`apply_geometry`; the crop has the size of an image of ``out_NHWC``.
        out_NHWC: array for the result, contiguous.
    """
    count, height, width, _ = out_NHWC.shape
    symmetries = [0] * count if symmetry_N is None else symmetry_N.tolist()
    assert height == width or max(symmetries, default=0) < 4
    pad, corner_N = 0, [[0, 0]] * count
    if position_N2 is not None:
        corner_N = crop_corners(position_N2, height, width, *images_MHWC.shape[1:3])
    elif shift_N2 is not None:
        pad = int(np.abs(shift_N2).max(initial=0))
        corner_N = (shift_N2 + pad).tolist()
    for row, out, symmetry, (top, left) in zip(rows_N.tolist(), out_NHWC, symmetries, corner_N, strict=True):
        image = images_MHWC[row]
        if pad:
            image = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REFLECT_101)
            image = image.reshape(*image.shape[:2], -1)  # OpenCV drops the axis of a single band
        apply_symmetry(image[top : top + height, left : left + width], symmetry, out)


def apply_symmetry(image_HWC: NDArray[Any], symmetry: int, out_HWC: NDArray[Any]) -> None:
    """Flip and turn an image by an element of D4 (:func:`apply_geometry`), into ``out_HWC``.

    Args:
        image_HWC: uint8 or uint16 (H, W, C); square if the symmetry transposes it.
        symmetry: element of D4, 0 to 7.
        out_HWC: receives the image; of the same shape.
    """
    assert image_HWC.shape == out_HWC.shape  # else OpenCV would allocate another array
    channels = image_HWC.shape[2]
    if channels == 1 or channels * image_HWC.itemsize not in CV_PIXEL_BYTES:
        source = image_HWC.transpose(1, 0, 2)[:: -1 if symmetry & 1 else 1, :: -1 if symmetry & 2 else 1]
        if symmetry < 4:
            source = image_HWC[:: -1 if symmetry & 2 else 1, :: -1 if symmetry & 1 else 1]
        out_HWC[:] = source
        return
    if symmetry == 0:
        out_HWC[:] = image_HWC
    elif symmetry in FLIP_CODES:
        cv2.flip(image_HWC, FLIP_CODES[symmetry], out_HWC)
    elif symmetry in ROTATE_CODES:
        cv2.rotate(image_HWC, ROTATE_CODES[symmetry], out_HWC)
    else:
        cv2.transpose(image_HWC, out_HWC)
        if symmetry == 7:
            cv2.flip(out_HWC, -1, out_HWC)


def apply_geometry_gpu(
    images_NHWC: Tensor, symmetry_N: NDArray[np.int64] | None, shift_N2: NDArray[np.int64] | None
) -> Tensor:
    """Apply :func:`apply_geometry` without crops on a GPU."""
    if symmetry_N is None and shift_N2 is None:
        return images_NHWC
    count, height, width, channels = images_NHWC.shape
    symmetry_N = np.zeros(count, np.int64) if symmetry_N is None else symmetry_N
    shift_N2 = np.zeros((count, 2), np.int64) if shift_N2 is None else shift_N2
    assert height == width or not (symmetry_N & 4).any()
    row_NH = _reflect(np.arange(height) + shift_N2[:, :1], height)
    column_NW = _reflect(np.arange(width) + shift_N2[:, 1:], width)
    row_NH = np.where(symmetry_N[:, None] & 2, row_NH[:, ::-1], row_NH) * width
    column_NW = np.where(symmetry_N[:, None] & 1, column_NW[:, ::-1], column_NW)
    if (symmetry_N & 4).any():
        transposed_N1 = (symmetry_N[:, None] & 4).astype(bool)
        row_NH, column_NW = (
            np.where(transposed_N1, column_NW, row_NH),
            np.where(transposed_N1, row_NH, column_NW),
        )
    row_NH = row_NH + np.arange(count)[:, None] * (height * width)
    device = images_NHWC.device
    down_NH1 = torch.from_numpy(row_NH).to(device, non_blocking=True)[:, :, None]
    across_N1W = torch.from_numpy(column_NW).to(device, non_blocking=True)[:, None, :]
    source = (down_NH1 + across_N1W).flatten()
    flat = images_NHWC.reshape(-1, channels)
    if flat.dtype == torch.uint16:  # torch selects no rows of unsigned types above 8 bits
        return flat.view(torch.int16).index_select(0, source).view(torch.uint16).view(images_NHWC.shape)
    return flat.index_select(0, source).view(images_NHWC.shape)


def _reflect(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Reflect indices outside an axis of ``size`` back into it, without repeating the edge."""
    period = max(2 * (size - 1), 1)
    folded = np.abs(index) % period
    reflected: NDArray[np.int64] = np.minimum(folded, period - folded)
    return reflected
