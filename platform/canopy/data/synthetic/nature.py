"""Draws forest, open land, water, bare ground, wind-throw, and trees in bloom."""

from __future__ import annotations

import numpy as np

from canopy.data.synthetic.scene import Color, Scene, Sketch
from canopy.data.synthetic.textures import (
    Field,
    blob,
    cover,
    distance,
    folded,
    fractal,
    noise,
    ramp,
    slope,
    turned,
    wander,
)

FOREST: tuple[Color, ...] = (
    (0.145, 0.215, 0.165),
    (0.135, 0.205, 0.185),
    (0.175, 0.225, 0.14),
    (0.16, 0.2, 0.15),
)
OPEN_LAND: tuple[Color, ...] = (
    (0.40, 0.40, 0.28),
    (0.46, 0.43, 0.31),
    (0.36, 0.39, 0.25),
    (0.43, 0.38, 0.27),
)
MUDDY: tuple[Color, ...] = ((0.56, 0.45, 0.33), (0.60, 0.47, 0.37), (0.50, 0.42, 0.30))
DARK_WATER: tuple[Color, ...] = ((0.05, 0.07, 0.11), (0.07, 0.10, 0.14), (0.07, 0.13, 0.19))
GREEN_WATER: tuple[Color, ...] = ((0.24, 0.35, 0.36), (0.29, 0.37, 0.34), (0.21, 0.33, 0.41))
SAND: tuple[Color, ...] = ((0.72, 0.65, 0.51), (0.68, 0.60, 0.48))
BARE: tuple[Color, ...] = ((0.71, 0.53, 0.34), (0.66, 0.44, 0.30), (0.72, 0.68, 0.60), (0.76, 0.65, 0.45))
BLOSSOM: tuple[Color, ...] = ((0.82, 0.76, 0.30), (0.84, 0.80, 0.70), (0.78, 0.52, 0.62), (0.80, 0.60, 0.26))


def forest(scene: Scene) -> None:
    """Closed canopy: crowns a pixel or two wide, a rolling relief lit by the sun, drier and wetter zones."""
    size, rng = scene.size, scene.grain
    green, other = (np.asarray(scene.pick(FOREST, 0.14), np.float32) for _ in range(2))
    zone_HW1 = ramp(noise(scene.shape, size, 2), 2.5)[:, :, None] * scene.shape.uniform(0, 0.7)
    crowns_HW = _crowns(rng, size)
    hills_HW = slope(fractal(scene.shape, size, int(scene.shape.integers(3, 9)), 2, gain=0.6), scene.sun)
    light_HW = 1 + scene.shape.uniform(0.09, 0.17) * crowns_HW + scene.shape.uniform(0.0, 0.13) * hills_HW
    scene.color_HWC[:] = (green + zone_HW1 * (other - green)) * np.maximum(light_HW, 0.35)[:, :, None]
    scene.evidence["primary"] = np.ones((size, size), np.float32)


def _crowns(rng: np.random.Generator, size: int) -> Field:
    """Mottling at every scale from groups of trees down to two pixels; unit variance."""
    octaves = max(int(np.log2(size / 28)) + 1, 1)
    return (fractal(rng, size, 14, octaves, gain=1.1) + noise(rng, size, size // 2)) / np.float32(np.sqrt(2))


def open_land(scene: Scene) -> None:
    """Grass and scrub, where there is no forest: pale, smooth, blotched, a bush here and there."""
    size, rng = scene.size, scene.grain
    grass, scrub = (np.asarray(scene.pick(OPEN_LAND, 0.1), np.float32) for _ in range(2))
    mix_HW1 = ramp(fractal(scene.shape, size, 3, 3), 2.0)[:, :, None]
    bush_HW = ramp(noise(rng, size, 20) - scene.shape.uniform(1.6, 2.6), 0.8)
    light_HW = 1 + 0.03 * fractal(rng, size, 12, 2)
    scene.color_HWC[:] = (grass + mix_HW1 * (scrub - grass)) * light_HW[:, :, None]
    scene.shade(1 - 0.4 * bush_HW)


def water(scene: Scene, alone: bool) -> None:
    """A meandering river, lakes, or (``alone``) the open water of a great river."""
    rng = scene.shape
    kind = rng.random()
    lakes = not alone and 0.12 <= kind < 0.3
    silty = rng.random() < (0.0 if lakes else 0.5)  # rivers carry silt; in lakes it has settled
    palette = MUDDY if silty else DARK_WATER if rng.random() < 0.6 else GREEN_WATER
    color = np.asarray(scene.pick(palette), np.float32)
    if alone or kind < 0.12:
        mask_HW = _broad_water(scene, rng.uniform(0.6, 0.95) if alone else rng.uniform(0.25, 0.45))
    elif lakes:
        mask_HW = _lakes(scene)
    else:
        mask_HW = _river(scene)
    swell_HW = 1 + 0.035 * fractal(scene.grain, scene.size, 3, 3)
    scene.paint(mask_HW, color * swell_HW[:, :, None], "water")


def _river(scene: Scene) -> Field:
    rng = scene.shape
    width = float(np.exp(rng.uniform(np.log(0.04), np.log(0.17))))
    # Meanders are about eleven widths long (Leopold and Wolman, "River meanders", 1960).
    waves = 1 / (width * rng.uniform(9, 14))
    heading, sway, bend = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.5), rng.normal(0, 0.6)
    course = wander(rng, scene.spot(0.2), heading, sway=sway, bend=bend, waves=waves)
    scene.paths["river"] = course
    if rng.random() < 0.45:  # sand on one bank
        bank, sand = rng.uniform(-1, 1, 2), Sketch(scene.size)
        sand.line(course[30:66] + bank / np.hypot(*bank) * width * 0.4, width * 0.9, scene.pick(SAND))
        scene.apply(sand, texture=1 + 0.06 * noise(scene.grain, scene.size, 16))
    narrows = np.interp(np.arange(97), np.arange(0, 97, 8), rng.uniform(0.75, 1.25, 13))
    sketch = Sketch(scene.size)
    sketch.line(course, width * narrows, (1, 1, 1))
    return sketch.finish()[0]


def _lakes(scene: Scene) -> Field:
    rng = scene.shape
    sketch = Sketch(scene.size)
    for _ in range(rng.integers(1, 4)):
        radius = rng.uniform(0.09, 0.19)
        sketch.polygon(blob(rng, scene.spot(radius), radius, 11, 0.3), (1, 1, 1))
    return sketch.finish()[0]


def _broad_water(scene: Scene, share: float) -> Field:
    along_HW, _ = turned(scene.size, scene.shape.uniform(0, 2 * np.pi))
    return cover(along_HW + 0.07 * fractal(scene.shape, scene.size, 2, 3), share, 0.025)


def bare_ground(scene: Scene, alone: bool) -> None:
    """Ochre or gray soil with ragged edges and washed-out streaks."""
    size, rng = scene.size, scene.shape
    share = rng.uniform(0.4, 0.8) if alone else rng.uniform(0.14, 0.34)
    center = scene.spot(0.18)
    shape_HW = -distance(size, center) * rng.uniform(2, 6) + fractal(rng, size, 4, 4, gain=0.65)
    soil, wash = (np.asarray(scene.pick(BARE, 0.1), np.float32) for _ in range(2))
    _, across_HW = turned(size, rng.uniform(0, np.pi))
    streaks_HW = ramp(np.sin(across_HW * rng.uniform(14, 40) + 2.6 * noise(rng, size, 4)), 3.0)
    mix_HW1 = (streaks_HW * rng.uniform(0.1, 0.5))[:, :, None]
    light_HW = 1 + 0.05 * fractal(scene.grain, size, 10, 3)
    scene.paint(
        cover(shape_HW, share, 0.35), (soil + mix_HW1 * (wash - soil)) * light_HW[:, :, None], "bare_ground"
    )


def blow_down(scene: Scene) -> None:
    """A fan of trees thrown by a gust: pale, and streaked along the fall."""
    size, rng = scene.size, scene.shape
    reach, half_width = rng.uniform(0.45, 0.75), rng.uniform(0.35, 0.6)
    center = scene.spot(reach / 2, on="primary")
    heading = rng.uniform(0, 2 * np.pi)
    apex = center - np.array([np.cos(heading), np.sin(heading)]) * reach / 2
    along_HW, across_HW = turned(size, heading, apex)
    ragged_HW = fractal(rng, size, 5, 4, gain=0.9)
    bearing_HW = np.arctan2(across_HW, np.maximum(along_HW, np.float32(1e-3)))
    radius_HW = np.hypot(along_HW, across_HW)
    inside_HW = np.minimum((half_width - np.abs(bearing_HW)) * radius_HW * 1.5, 0.8 * (reach - radius_HW))
    inside_HW = np.minimum(inside_HW, along_HW)
    # Trunks lie along the bearing: noise that is fine across it and long along it.
    knots = np.linspace(-1.6, 1.6, 90)
    spokes_HW = np.interp(bearing_HW + 0.05 * ragged_HW, knots, rng.standard_normal(90)).astype(np.float32)
    standing_HW = ramp(0.75 * spokes_HW + fractal(scene.grain, size, 12, 3, gain=0.9) - 0.7, 1.2)
    thrown_HW = ramp(inside_HW + 0.055 * ragged_HW, 0.16) * (1 - np.float32(0.65) * standing_HW)
    pale = np.asarray(scene.tone((0.46, 0.43, 0.32), 0.08), np.float32)
    light_HW = 1 + 0.15 * spokes_HW + 0.10 * noise(scene.grain, size, 28)
    scene.paint(np.float32(0.88) * thrown_HW, pale * light_HW[:, :, None], "blow_down")


def blooming(scene: Scene) -> None:
    """One species in flower: a handful of crowns brighter than all around them."""
    rng = scene.shape
    sketch = Sketch(scene.size)
    blossom = scene.pick(BLOSSOM)
    center, reach = scene.spot(0.25, on="primary"), rng.uniform(0.14, 0.4)
    for crown in folded(rng.normal(center, reach, (rng.integers(14, 38), 2))):
        sketch.dot(crown, rng.uniform(0.008, 0.019), scene.tone(blossom, 0.08))
    scene.apply(sketch, "blooming", strength=rng.uniform(0.65, 0.95))
