"""Renders one chip from one set of labels."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from canopy.data.synthetic import farming, infrastructure, nature, sky
from canopy.data.synthetic.scene import Scene


def render_chip(labels: Collection[str], size: int, seed: int, row: int) -> NDArray[np.uint8]:
    """The chip's pixels, shape (size, size, 3), RGB: a pure function of its arguments."""
    return sky.expose(paint_scene(labels, size, seed, row))


def paint_scene(labels: Collection[str], size: int, seed: int, row: int) -> Scene:
    """The scene before the sensor model, with the visible evidence of each of its labels.

    Large objects are drawn first, small ones over them, the weather last.
    """
    scene = Scene(size, np.random.default_rng([seed, 1, row]), np.random.default_rng([seed, 2, row]))
    if "cloudy" in labels:
        sky.cloudy(scene)
        return scene
    _paint_land(scene, labels)
    _paint_works(scene, labels)
    if "partly_cloudy" in labels:
        sky.partly_cloudy(scene)
    if "haze" in labels:
        sky.haze(scene)
    return scene


def _paint_land(scene: Scene, labels: Collection[str]) -> None:
    has_forest = "primary" in labels
    if has_forest:
        nature.forest(scene)
    else:
        nature.open_land(scene)
    if "agriculture" in labels:
        nothing_else = not has_forest and not {"water", "bare_ground"} & set(labels)
        share = 1.0 if nothing_else else scene.shape.uniform(0.22, 0.6)
        farming.agriculture(scene, share)
    if "conventional_mine" in labels:
        infrastructure.conventional_mine(scene)
    others = {"agriculture", "bare_ground", "artisinal_mine", "conventional_mine"} & set(labels)
    if "water" in labels:
        nature.water(scene, alone=not has_forest and not others)
    if "bare_ground" in labels:
        nature.bare_ground(scene, alone=not has_forest and not others - {"bare_ground"})
    if "blow_down" in labels:
        nature.blow_down(scene)
    if "slash_burn" in labels:
        farming.slash_burn(scene)


def _paint_works(scene: Scene, labels: Collection[str]) -> None:
    if "artisinal_mine" in labels:
        infrastructure.artisinal_mine(scene)
    if "road" in labels:
        infrastructure.road(scene)
    if "cultivation" in labels:
        farming.cultivation(scene)
    if "selective_logging" in labels:
        infrastructure.selective_logging(scene)
    if "habitation" in labels:
        infrastructure.habitation(scene)
    if "blooming" in labels:
        nature.blooming(scene)
