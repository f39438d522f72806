"""Noise fields, soft masks, paths and polygons over a chip, as pure functions over arrays.

Coordinates are in units of the chip's side: (0, 0) is the upper left corner, (1, 1) the lower right,
x first. So a scene shows the same ground at any number of pixels.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
"""One value per pixel, shape (H, W)."""
Points = NDArray[np.float64]
"""Points (x, y), shape (M, 2)."""
Place = tuple[float, float] | NDArray[np.float64]
"""One point (x, y)."""


@lru_cache(maxsize=64)
def grid(size: int) -> tuple[Field, Field]:
    """Coordinates x and y of every pixel center, each of shape (size, size)."""
    at = ((np.arange(size) + 0.5) / size).astype(np.float32)
    x_HW, y_HW = np.meshgrid(at, at)
    return x_HW, y_HW


@lru_cache(maxsize=512)
def _spline_basis(size: int, cells: int) -> NDArray[np.float32]:
    """Uniform cubic B-splines at the pixel centers, shape (size, cells + 3), scaled to unit variance."""
    at = (np.arange(size) + 0.5) / size * cells
    cell = np.minimum(at.astype(int), cells - 1)
    t = at - cell
    weights = (
        np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    )
    basis = np.zeros((size, cells + 3))
    np.put_along_axis(basis, cell[:, None] + np.arange(4), weights, axis=1)
    return np.asarray(basis / np.sqrt((basis**2).sum(axis=1).mean()), np.float32)


def noise(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Smooth noise of about unit variance; a bump is about ``1 / cells`` wide.

    Random spline coefficients on a lattice, interpolated by two small matrix products: a tenth of
    the cost of filtering white noise.
    """
    lattice = rng.standard_normal((cells + 3, cells + 3), dtype=np.float32)
    basis = _spline_basis(size, cells)
    return np.asarray(basis @ lattice @ basis.T)


def fractal(rng: np.random.Generator, size: int, cells: int, octaves: int, gain: float = 0.5) -> Field:
    """Noise of ``octaves`` scales, each twice as fine and ``gain`` times as strong; unit variance."""
    out_HW = np.zeros((size, size), np.float32)
    power = 0.0
    for octave in range(octaves):
        weight = gain**octave
        out_HW += weight * noise(rng, size, cells << octave)
        power += weight**2
    return out_HW / np.float32(np.sqrt(power))


def cover(field_HW: Field, share: float, softness: float) -> Field:
    """Soft mask of the ``share`` of the chip where ``field_HW`` is highest.

    Args:
        field_HW: any field.
        share: wanted share of the chip, in (0, 1).
        softness: rise of the field from mask 0 to mask 1.
    """
    flat = field_HW.ravel()
    position = min(max(int((1 - share) * flat.size), 0), flat.size - 1)
    return ramp(field_HW - np.partition(flat, position)[position], softness)


def ramp(field_HW: Field, width: float) -> Field:
    """0 below -width/2, 1 above width/2, smooth (3t² - 2t³) between."""
    t = np.clip(field_HW / np.float32(width) + np.float32(0.5), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def turned(size: int, angle: float, about: Place = (0.5, 0.5)) -> tuple[Field, Field]:
    """Coordinates along and across the direction ``angle`` (radians), from the point ``about``."""
    x_HW, y_HW = grid(size)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = x_HW - np.float32(about[0]), y_HW - np.float32(about[1])
    return c * dx + s * dy, c * dy - s * dx


def distance(size: int, center: Place) -> Field:
    """Distance of every pixel from ``center``."""
    x_HW, y_HW = grid(size)
    return np.asarray(np.hypot(x_HW - np.float32(center[0]), y_HW - np.float32(center[1])))


def slope(field_HW: Field, angle: float) -> Field:
    """How much the field falls over a pixel-sized step in direction ``angle``, at unit variance."""
    down_HW, right_HW = np.gradient(field_HW)
    out_HW = np.float32(np.cos(angle)) * right_HW + np.float32(np.sin(angle)) * down_HW
    return np.asarray(out_HW / (out_HW.std() + 1e-6), np.float32)


def shifted(field_HW: Field, dx: float, dy: float) -> Field:
    """The field moved by (dx, dy), in whole pixels; 0 comes in from outside."""
    size = len(field_HW)
    right, down = round(dx * size), round(dy * size)
    out_HW = np.zeros_like(field_HW)
    rows, columns = slice(max(down, 0), size + min(down, 0)), slice(max(right, 0), size + min(right, 0))
    from_rows = slice(max(-down, 0), size + min(-down, 0))
    from_columns = slice(max(-right, 0), size + min(-right, 0))
    out_HW[rows, columns] = field_HW[from_rows, from_columns]
    return out_HW


def wander(
    rng: np.random.Generator,
    through: Place,
    heading: float,
    *,
    sway: float,
    bend: float,
    waves: float,
) -> Points:
    """A path of length 2.4 through the point ``through``, shape (97, 2).

    Its direction swings like a sine along its length: the shape of a meandering river (Langbein and
    Leopold, "River meanders - theory of minimum variance", 1966).

    Args:
        rng: for the phase of the swing.
        through: a point on the path.
        heading: mean direction in radians.
        sway: amplitude of the swing in radians: 0 is straight, above 1.5 it makes ox-bows.
        bend: turn over the whole length, in radians.
        waves: swings per unit of length.
    """
    s = np.linspace(-1.2, 1.2, 97)
    phase = rng.uniform(0, 2 * np.pi)
    angle = heading + bend * s / 2.4 + sway * np.sin(2 * np.pi * waves * s + phase)
    steps = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (s[1] - s[0])
    path = steps.cumsum(axis=0)
    return np.asarray(path - path[48] + through)


def folded(points: Points) -> Points:
    """The points, those outside the chip mirrored back into it (if not further than a side away)."""
    return np.asarray(1 - np.abs(1 - np.abs(points)))


def blob(rng: np.random.Generator, center: Place, radius: float, corners: int, rough: float) -> Points:
    """An irregular polygon around ``center``, shape (corners, 2); ``rough`` 0 is a regular one."""
    turn = (
        np.arange(corners) + rng.uniform(-0.5, 0.5, corners) * min(rough * 1.5, 0.9) + rng.uniform(0, corners)
    )
    angle = 2 * np.pi * turn / corners
    reach = radius * (1 + rough * rng.uniform(-1, 1, corners))
    return np.stack([center[0] + reach * np.cos(angle), center[1] + reach * np.sin(angle)], axis=1)
