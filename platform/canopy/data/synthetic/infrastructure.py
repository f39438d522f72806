"""Draws roads, houses, logging tracks and mines."""

from __future__ import annotations

import numpy as np

from canopy.data.synthetic.scene import Color, Scene, Sketch
from canopy.data.synthetic.textures import (
    Field,
    Place,
    Points,
    blob,
    folded,
    fractal,
    noise,
    ramp,
    slope,
    turned,
    wander,
)

DIRT: tuple[Color, ...] = ((0.62, 0.51, 0.40), (0.66, 0.52, 0.38), (0.58, 0.50, 0.42), (0.60, 0.43, 0.33))
ROOFS: tuple[Color, ...] = ((0.84, 0.83, 0.80), (0.70, 0.70, 0.72), (0.66, 0.38, 0.29), (0.78, 0.70, 0.60))
TRACKS: tuple[Color, ...] = ((0.50, 0.37, 0.25), (0.54, 0.40, 0.28), (0.46, 0.36, 0.26))
TAILINGS: tuple[Color, ...] = (
    (0.82, 0.74, 0.54),
    (0.78, 0.66, 0.45),
    (0.84, 0.79, 0.66),
    (0.74, 0.60, 0.44),
)
PONDS: tuple[Color, ...] = ((0.34, 0.56, 0.52), (0.42, 0.55, 0.46), (0.25, 0.40, 0.40), (0.52, 0.54, 0.40))
PIT: tuple[Color, ...] = ((0.62, 0.44, 0.34), (0.58, 0.50, 0.44), (0.66, 0.50, 0.42))
PIT_FLOOR: tuple[Color, ...] = ((0.44, 0.42, 0.41), (0.40, 0.37, 0.36))


def road(scene: Scene) -> None:
    """One or two dirt roads with a cleared strip on both sides; straight ones follow the fields' grid."""
    rng = scene.shape
    strip, surface = Sketch(scene.size), Sketch(scene.size)
    dirt = scene.pick(DIRT)
    width = rng.uniform(0.013, 0.026)
    through = scene.spot(0.1)
    heading = scene.axis + rng.integers(2) * np.pi / 2
    curved = rng.random() < 0.5
    sway, bend = (rng.uniform(0.1, 0.5), rng.normal(0, 0.8)) if curved else (0.0, 0.0)
    main = wander(rng, through, heading, sway=sway, bend=bend, waves=rng.uniform(0.5, 1.3))
    courses = [main]
    if rng.random() < 0.45:  # a side road from the junction
        side = wander(rng, through, heading + np.pi / 2 + rng.normal(0, 0.2), sway=sway, bend=0.0, waves=0.8)
        courses.append(side[48:] if rng.random() < 0.6 else side)
    for course in courses:
        strip.line(course, width * 3.2, scene.tone((0.33, 0.37, 0.24)))
        surface.line(course, width, dirt)
    regrowth_HW = 1 + 0.1 * noise(scene.grain, scene.size, 24)
    scene.apply(strip, texture=regrowth_HW, strength=rng.uniform(0.2, 0.7))
    scene.apply(surface, "road", texture=1 + 0.07 * noise(scene.grain, scene.size, 12))
    scene.paths["road"] = main


def habitation(scene: Scene) -> None:
    """Roofs with their shadows on trodden ground: farmsteads along a road, a hamlet, or a town's blocks."""
    rng = scene.shape
    town = rng.random() < 0.2
    if "road" in scene.paths and rng.random() < 0.85:
        anchors = scene.along("road", 2)
        heading = _heading(scene.paths["road"], anchors[0])
    else:
        anchors, heading = np.array([scene.spot(0.12)]), scene.axis
    places = _town_blocks(scene, anchors[0], heading) if town else _houses(scene, anchors, heading)
    yard, shadow, roof = Sketch(scene.size), Sketch(scene.size), Sketch(scene.size)
    ground = scene.pick(DIRT, 0.1)
    fall = np.array([np.cos(scene.sun), np.sin(scene.sun)]) * 0.012
    reach = 0.06 if town else 0.035
    for place, color in zip(places, scene.picks(ROOFS, len(places), 0.07), strict=True):
        yard.dot(place, reach * rng.uniform(0.5, 1.1), ground)
        length, depth = rng.uniform(0.018, 0.038), rng.uniform(0.015, 0.023)
        turn = heading + rng.integers(2) * np.pi / 2 + rng.normal(0, 0.08)
        corners = _rectangle(place, length, depth, turn)
        shadow.polygon(corners + fall, (0.10, 0.10, 0.09))
        roof.polygon(corners, color)
    trodden_HW = 1 + 0.1 * noise(scene.grain, scene.size, 20)
    scene.apply(yard, texture=trodden_HW, strength=rng.uniform(0.3, 0.7))
    scene.apply(shadow)
    scene.apply(roof, "habitation")


def _houses(scene: Scene, anchors: Points, heading: float) -> Points:
    rng = scene.shape
    count = rng.integers(9, 24)
    across = np.array([-np.sin(heading), np.cos(heading)])
    side = rng.choice([-1, 1], count) * rng.uniform(0.022, 0.075, count)
    along = rng.normal(0, 0.11, count)
    places = anchors[rng.integers(len(anchors), size=count)] + side[:, None] * across
    places = places + along[:, None] * np.array([np.cos(heading), np.sin(heading)])
    return folded(places)


def _town_blocks(scene: Scene, center: Points, heading: float) -> Points:
    rng = scene.shape
    across, along = np.meshgrid(np.arange(-5, 6) * 0.045, np.arange(-6, 7) * 0.038)
    lattice = np.stack([along.ravel(), across.ravel()], axis=1) + rng.normal(0, 0.004, (along.size, 2))
    lattice = lattice[(lattice[:, 1] / 0.045).round() % 3 != 0]  # every third row is a street
    reach = rng.uniform(0.16, 0.3)
    lattice = lattice[(np.hypot(*lattice.T) < reach) & (rng.random(len(lattice)) < 0.8)]
    turn = np.array([[np.cos(heading), np.sin(heading)], [-np.sin(heading), np.cos(heading)]])
    return np.asarray(lattice @ turn + np.clip(center, 0.2, 0.8))


def _rectangle(center: Points, length: float, depth: float, heading: float) -> Points:
    along = np.array([np.cos(heading), np.sin(heading)]) * length / 2
    across = np.array([-np.sin(heading), np.cos(heading)]) * depth / 2
    corners = (along + across, along - across, -along - across, across - along)
    return np.stack([center + corner for corner in corners])


def _heading(path: Points, at: Points) -> float:
    nearest = int(np.clip(np.hypot(*(path - at).T).argmin(), 1, len(path) - 2))
    dx, dy = path[nearest + 1] - path[nearest - 1]
    return float(np.arctan2(dy, dx))


def selective_logging(scene: Scene) -> None:
    """A skid track with branches under the canopy, a small brown landing at each end."""
    rng = scene.shape
    sketch = Sketch(scene.size)
    earth = scene.pick(TRACKS)
    middle, sway = scene.spot(0.22, on="primary"), rng.uniform(0.2, 0.7)
    trunk = wander(rng, middle, rng.uniform(0, 2 * np.pi), sway=sway, bend=0.0, waves=1.2)
    trunk = trunk[rng.integers(20, 34) : rng.integers(62, 78)]
    sketch.line(trunk, 0.015, earth)
    for start in rng.integers(4, len(trunk) - 4, rng.integers(6, 11)):
        heading = _heading(trunk, trunk[start]) + rng.choice([-1, 1]) * rng.uniform(0.6, 1.4)
        length = rng.uniform(0.06, 0.18)
        end = trunk[start] + length * np.array([np.cos(heading), np.sin(heading)])
        sketch.line(
            np.stack([trunk[start], (trunk[start] + end) / 2 + rng.normal(0, 0.012, 2), end]), 0.011, earth
        )
        landing = blob(rng, end, rng.uniform(0.015, 0.032), 6, 0.45)
        sketch.polygon(landing, scene.tone(earth, 0.12))
    scene.apply(sketch, "selective_logging", texture=1 + 0.1 * noise(scene.grain, scene.size, 20))


def artisinal_mine(scene: Scene) -> None:
    """Gold digging along a creek: a chain of pale mud heaps with turquoise tailing ponds among them."""
    size, rng = scene.size, scene.shape
    creek = scene.paths.get("river")
    if creek is None:
        sway = rng.uniform(0.5, 1.1)
        creek = wander(rng, scene.spot(0.2), rng.uniform(0, 2 * np.pi), sway=sway, bend=0.0, waves=1.4)
    scene.paths["creek"] = creek
    middle = scene.along("creek", 1)[0]
    mud, heaps, ponds = Sketch(size), Sketch(size), Sketch(size)
    spread, count = rng.uniform(0.1, 0.19), int(rng.integers(12, 24))
    near = creek[np.hypot(*(creek - middle).T).argsort()[: rng.integers(18, 34)]]
    for _ in range(count):
        at = near[rng.integers(len(near))] + rng.normal(0, spread * 0.35, 2)
        heaps.polygon(blob(rng, at, rng.uniform(0.035, 0.08), 8, 0.45), scene.pick(TAILINGS, 0.06))
        if rng.random() < 0.6:
            pool = at + rng.normal(0, 0.02, 2)
            ponds.polygon(blob(rng, pool, rng.uniform(0.018, 0.038), 7, 0.35), scene.pick(PONDS))
    mud.polygon(blob(rng, middle, spread * 2.2, 14, 0.35), scene.pick(TRACKS))
    thin_HW = np.float32(0.8) * ramp(fractal(scene.grain, size, 6, 4, gain=0.8), 2.0)
    scene.apply(mud, "artisinal_mine", strength=thin_HW)
    scene.apply(heaps, "artisinal_mine", texture=1 + 0.13 * fractal(scene.grain, size, 14, 3, gain=0.8))
    scene.apply(ponds, "artisinal_mine")


def conventional_mine(scene: Scene) -> None:
    """An open pit: terraces nested down to a gray floor, lit on one side, with spoil, haul road and sump."""
    size, rng = scene.size, scene.shape
    radius = rng.uniform(0.22, 0.35)
    center = scene.spot(radius)
    depth_HW = _pit_depth(scene, center, radius)
    steps = int(rng.integers(3, 6))
    level_HW = np.clip(depth_HW * np.float32(steps * 1.25), 0, steps)
    bench_HW = np.floor(level_HW)
    wall_HW = ramp(level_HW - bench_HW - 0.86, 0.3)  # the last part of each step falls steeply
    rock, floor = (np.asarray(scene.pick(colors), np.float32) for colors in (PIT, PIT_FLOOR))
    deep_HW1 = (bench_HW / np.float32(steps))[:, :, None]
    lit_HW = 1 + 0.14 * np.clip(slope(bench_HW + wall_HW, scene.sun), -2.2, 2.2)
    dusty_HW = 1 + 0.06 * fractal(scene.grain, size, 12, 3, gain=0.8)
    light_HW = lit_HW * dusty_HW * (1 - 0.25 * wall_HW)
    color_HWC = (rock + deep_HW1 * (floor - rock)) * light_HW[:, :, None]
    spoil_HW = ramp(depth_HW + 0.1 + 0.14 * fractal(rng, size, 4, 3, gain=0.7), 0.25) * np.float32(0.75)
    soil_HWC = np.asarray(scene.pick(DIRT), np.float32) * (1 + 0.1 * noise(scene.grain, size, 14))[:, :, None]
    scene.paint(spoil_HW, soil_HWC, "conventional_mine")
    scene.paint(ramp(depth_HW, 0.05), color_HWC, "conventional_mine")
    _pit_details(scene, center, radius)


def _pit_depth(scene: Scene, center: Place, radius: float) -> Field:
    """Depth of a pit: 1 in the middle, 0 on the rim, negative outside; between an ellipse and a rectangle."""
    rng = scene.shape
    heading, stretch, power = rng.uniform(0, np.pi), rng.uniform(1.0, 1.5), rng.uniform(2, 5)
    along_HW, across_HW = turned(scene.size, heading, center)
    outline_HW = (np.abs(along_HW / stretch) ** power + np.abs(across_HW) ** power) ** (1 / power)
    uneven_HW = 0.07 * fractal(rng, scene.size, 3, 2)
    return np.asarray(1 - outline_HW / radius + uneven_HW, np.float32)


def _pit_details(scene: Scene, center: Place, radius: float) -> None:
    rng = scene.shape
    sketch = Sketch(scene.size)
    turn = rng.uniform(0, 2 * np.pi) + np.linspace(0, 2.5, 9)
    reach = radius * np.linspace(1.25, 0.25, 9)
    ramp_road = np.stack([center[0] + reach * np.cos(turn), center[1] + reach * np.sin(turn)], axis=1)
    sketch.line(ramp_road, 0.014, scene.tone((0.72, 0.62, 0.52)))
    if rng.random() < 0.6:
        sump = center + rng.normal(0, radius * 0.12, 2)
        sketch.polygon(blob(rng, sump, radius * 0.2, 7, 0.3), scene.tone((0.24, 0.36, 0.37)))
    scene.apply(sketch, "conventional_mine")
