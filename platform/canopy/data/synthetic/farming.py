"""Draws cleared and farmed land: fields, small plots, fresh burns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from canopy.data.synthetic.scene import Color, Scene, Sketch
from canopy.data.synthetic.textures import (
    Field,
    Place,
    blob,
    cover,
    distance,
    folded,
    fractal,
    noise,
    ramp,
    turned,
)

FIELDS: tuple[Color, ...] = (
    (0.34, 0.41, 0.25),
    (0.43, 0.46, 0.33),
    (0.56, 0.49, 0.34),
    (0.60, 0.51, 0.41),
    (0.25, 0.33, 0.20),
    (0.42, 0.49, 0.26),
    (0.49, 0.44, 0.31),
)
PLOTS: tuple[Color, ...] = ((0.40, 0.47, 0.22), (0.46, 0.46, 0.27), (0.33, 0.42, 0.22), (0.52, 0.46, 0.31))
CHARRED: tuple[Color, ...] = ((0.05, 0.043, 0.04), (0.07, 0.055, 0.05), (0.08, 0.075, 0.07))
FIELD_KINDS = 64


def agriculture(scene: Scene, share: float) -> None:
    """A patchwork of straight-edged fields, ``share`` of the chip: crops in rows, pasture, fallow, hedges."""
    rng = scene.shape
    fine = scene.size * (2 if scene.size <= 128 else 1)  # for smooth edges
    lots = _lots(scene, fine)
    palette_FC = scene.picks(FIELDS, FIELD_KINDS, 0.08)
    chance_F = rng.random((5, FIELD_KINDS), dtype=np.float32)
    rows_F = np.where(chance_F[0] < rng.uniform(0.1, 0.6), 0.04 + 0.08 * chance_F[1], np.float32(0))
    pitch_F = 2 * np.float32(np.pi) / (0.04 + 0.045 * chance_F[2])
    hedged_F = np.where(chance_F[3] < rng.uniform(0, 0.8), np.float32(0.4), np.float32(0))
    id_HW = lots.number_HW
    turns_HW = np.where((chance_F[4] < 0.5)[id_HW], lots.along_HW, lots.across_HW) * pitch_F[id_HW]
    light_HW = 1 + rows_F[id_HW] * np.sin(turns_HW) - hedged_F[id_HW] * (lots.edge_HW < 0.009)
    cleared_HW = _cleared(scene, id_HW, share)
    color_HWC = palette_FC[id_HW] * (light_HW * cleared_HW)[:, :, None]
    mask_HW, color_HWC = _halved(cleared_HW, scene.size), _halved(color_HWC, scene.size)
    soil_HW = 1 + 0.05 * fractal(scene.grain, scene.size, 8, 3) + 0.06 * noise(rng, scene.size, 3)
    color_HWC *= (soil_HW / np.maximum(mask_HW, 1e-3))[:, :, None]
    scene.paint(mask_HW, color_HWC, "agriculture")


class Lots(NamedTuple):
    """A slanted grid of lots."""

    number_HW: NDArray[np.intp]
    """Which lot, in [0, 64)."""
    edge_HW: Field
    """Distance to the lot's border, in chip sides."""
    along_HW: Field
    across_HW: Field
    """Coordinates in the grid's directions."""


def _lots(scene: Scene, size: int) -> Lots:
    rng = scene.shape
    along_HW, across_HW = turned(size, scene.axis)
    scale, wobble = rng.uniform(0.7, 1.5), np.float32(rng.choice([0.004, 0.012, 0.03]))
    column_HW = along_HW + wobble * noise(rng, size, 4)
    cuts = (rng.uniform(0.12, 0.34, 16) * scale).cumsum().astype(np.float32)
    cuts -= cuts[7] + np.float32(rng.uniform(0, 0.2))
    strip_HW = np.searchsorted(cuts, column_HW.ravel()).reshape(size, size)
    left_HW = column_HW - np.append(np.float32(-9), cuts)[strip_HW]
    right_HW = np.append(cuts, np.float32(9))[strip_HW] - column_HW
    length_S = (rng.uniform(0.14, 0.5, 17) * scale).astype(np.float32)
    offset_S = rng.uniform(0, 1, 17).astype(np.float32)
    row_HW = (across_HW + wobble * noise(rng, size, 4)) / length_S[strip_HW] + offset_S[strip_HW]
    number_HW = np.floor(row_HW).astype(np.intp)
    part_HW = row_HW - number_HW.astype(np.float32)
    end_HW = np.minimum(part_HW, 1 - part_HW) * length_S[strip_HW]
    edge_HW = np.minimum(np.minimum(left_HW, right_HW), end_HW)
    return Lots((strip_HW * 13 + number_HW) % FIELD_KINDS, edge_HW, along_HW, across_HW)


def _cleared(scene: Scene, id_HW: NDArray[np.intp], share: float) -> Field:
    """Choose neighboring fields to clear until they cover ``share`` of the chip."""
    size, rng = len(id_HW), scene.shape
    side_HW, _ = turned(size, rng.uniform(0, 2 * np.pi))
    wish_HW = 2.2 * side_HW + 0.8 * noise(rng, size, 3)
    if share >= 1:
        return np.ones_like(wish_HW)
    area_F = np.bincount(id_HW.ravel(), minlength=FIELD_KINDS)
    wish_F = np.bincount(id_HW.ravel(), wish_HW.ravel(), minlength=FIELD_KINDS) / np.maximum(area_F, 1)
    order = np.argsort(np.where(area_F > 0, -wish_F, np.inf))
    taken = order[: np.searchsorted(area_F[order].cumsum(), share * size * size) + 1]
    mask_HW = np.isin(np.arange(FIELD_KINDS), taken)[id_HW].astype(np.float32)
    if mask_HW.mean() > share + 0.1:  # the last field was too large: it is cleared in part
        mask_HW *= cover(np.where(mask_HW > 0, wish_HW, np.float32(-9)), share, 0.06)
    return mask_HW


def _halved(array: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Means of square blocks, down to ``size`` pixels a side; shape (H, W) or (H, W, C)."""
    factor = len(array) // size
    if factor == 1:
        return array
    blocks = array.reshape(size, factor, size, factor, *array.shape[2:])
    return np.asarray((blocks[:, 0, :, 0] + blocks[:, 0, :, 1] + blocks[:, 1, :, 0] + blocks[:, 1, :, 1]) / 4)


def cultivation(scene: Scene) -> None:
    """Small plots of irregular outline, close together, at different stages of growth."""
    size, rng = scene.size, scene.shape
    sketch = Sketch(size)
    path = next((name for name in ("river", "road") if name in scene.paths), None)
    center = scene.along(path, 1)[0] if path and rng.random() < 0.6 else scene.spot(0.2)
    count = int(rng.integers(7, 14))
    colors = scene.picks(PLOTS, count, 0.1)
    for color in colors:
        at = folded(rng.normal(center, 0.13))
        corners, rough = (int(rng.integers(5, 7)), 0.35) if rng.random() < 0.5 else (13, 0.3)
        sketch.polygon(blob(rng, at, rng.uniform(0.03, 0.08), corners, rough), color)
    for at in folded(rng.normal(center, 0.14, (rng.integers(3, 12), 2))):  # trees that were not felled
        sketch.dot(at, 0.01, (0.15, 0.21, 0.14))
    stubble_HW = 1 + 0.14 * fractal(scene.grain, size, 20, 2, gain=0.9)
    scene.apply(sketch, "cultivation", texture=stubble_HW)


def slash_burn(scene: Scene) -> None:
    """Fresh burns: black ground with ash, a scorched gray-brown rim, at times smoke."""
    size, rng = scene.size, scene.shape
    radius = rng.uniform(0.13, 0.23)
    center = scene.spot(radius, on="primary")
    ragged_HW = fractal(rng, size, 5, 4, gain=0.75)
    reach_HW = _burn_shape(scene, center, radius) + 0.03 * ragged_HW
    if rng.random() < 0.5:
        second = center + rng.uniform(-0.3, 0.3, 2)
        reach_HW = np.maximum(reach_HW, _burn_shape(scene, second, radius * 0.6) + 0.03 * ragged_HW)
    rim = np.asarray(scene.tone((0.38, 0.315, 0.25), 0.08), np.float32)
    char, ash = np.asarray(scene.pick(CHARRED), np.float32), np.asarray((0.34, 0.32, 0.31), np.float32)
    ash_HW1 = ramp(fractal(scene.grain, size, 9, 3, gain=0.8) - 0.7, 1.4)[:, :, None] * np.float32(0.55)
    scorched_HW = 0.028 + 0.03 * fractal(scene.grain, size, 6, 2)  # wide here, none there
    rim_HWC = rim * (1 + 0.12 * noise(scene.grain, size, 16))[:, :, None]
    scene.paint(ramp(reach_HW + scorched_HW, 0.04) * np.float32(0.85), rim_HWC, "slash_burn")
    scene.paint(ramp(reach_HW, 0.035), char + ash_HW1 * (ash - char), "slash_burn")
    if rng.random() < 0.5:
        _smoke(scene, center)


def _burn_shape(scene: Scene, center: Place, radius: float) -> Field:
    """Depth inside the burn, negative outside; between a rectangle and an ellipse."""
    along_HW, across_HW = turned(scene.size, scene.shape.uniform(0, np.pi), center)
    stretch = np.float32(scene.shape.uniform(1, 1.6))
    square_HW = np.maximum(np.abs(along_HW) / stretch, np.abs(across_HW) * stretch)
    return np.float32(radius) - np.float32(0.5) * (square_HW + distance(scene.size, center))


def _smoke(scene: Scene, source: Place) -> None:
    along_HW, across_HW = turned(scene.size, scene.shape.uniform(0, 2 * np.pi), source)
    billow_HW = fractal(scene.shape, scene.size, 5, 3, gain=0.7)
    width_HW = 0.03 + 0.28 * np.maximum(along_HW, 0)
    plume_HW = ramp(width_HW + 0.05 * billow_HW - np.abs(across_HW), 0.12) * ramp(along_HW, 0.12)
    fade_HW = np.exp(-np.maximum(along_HW, 0) * 2.2) * 0.6
    seen = scene.evidence["slash_burn"].copy()
    scene.paint((plume_HW * fade_HW).astype(np.float32), (0.66, 0.68, 0.70))
    scene.evidence["slash_burn"] = seen  # its smoke shows a fire as well as its ground does
