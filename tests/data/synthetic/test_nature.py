"""Painters of forest, open land, water, bare ground, wind-throw and trees in bloom."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from tests.data.synthetic.scenes import SIZE, Painter, check_painter, empty_scene, forest_scene

from canopy.data.synthetic import nature


@pytest.mark.parametrize(
    ("painter", "label", "only_label"),
    [
        (partial(nature.water, alone=False), "water", False),
        (partial(nature.water, alone=True), "water", True),
        (partial(nature.bare_ground, alone=False), "bare_ground", True),
        (partial(nature.bare_ground, alone=True), "bare_ground", True),
        (nature.blow_down, "blow_down", True),
        (nature.blooming, "blooming", True),
    ],
)
def test_painters_mark_their_label(painter: Painter, label: str, only_label: bool) -> None:
    check_painter(painter, label, only_label=only_label)


def test_forest_fills_the_chip_with_dark_green() -> None:
    scene, same = forest_scene(3), forest_scene(3)
    np.testing.assert_array_equal(scene.color_HWC, same.color_HWC)
    np.testing.assert_array_equal(scene.evidence["primary"], np.ones((SIZE, SIZE)))
    red, green, blue = scene.color_HWC.mean(axis=(0, 1))
    assert red > 0
    assert green > max(red, blue)
    assert green < 0.4
    assert scene.color_HWC.std() > 0.01


def test_open_land_shows_no_label_and_is_paler_than_forest() -> None:
    for seed in range(6):
        scene = empty_scene(seed)
        nature.open_land(scene)
        assert scene.evidence == {}
        assert scene.color_HWC.min() > 0
        assert scene.color_HWC.mean() > 1.3 * forest_scene(seed).color_HWC.mean()


def test_water_alone_covers_most_of_the_chip() -> None:
    for seed in range(6):
        scene = forest_scene(seed)
        nature.water(scene, alone=True)
        assert 0.5 < scene.evidence["water"].mean() < 1, seed
        assert "river" not in scene.paths


def test_a_river_is_water_along_its_path() -> None:
    rivers = 0
    for seed in range(8):
        scene = forest_scene(seed)
        nature.water(scene, alone=False)
        if "river" not in scene.paths:
            continue
        rivers += 1
        path = scene.paths["river"]
        inside = path[((path > 0.02) & (path < 0.98)).all(axis=1)]
        column, row = (inside * SIZE).astype(int).T
        assert scene.evidence["water"][row, column].mean() > 0.7, seed
    assert rivers >= 3


def test_bare_ground_alone_covers_more() -> None:
    small: list[float] = []
    large: list[float] = []
    for seed in range(6):
        for alone, shares in ((False, small), (True, large)):
            scene = forest_scene(seed)
            nature.bare_ground(scene, alone)
            shares.append(float(scene.evidence["bare_ground"].mean()))
    assert max(small) < 0.5
    assert np.mean(large) > 1.5 * np.mean(small)


def test_blossom_is_brighter_than_the_forest() -> None:
    scene = forest_scene(4)
    before = scene.color_HWC.mean()
    nature.blooming(scene)
    assert scene.color_HWC[scene.evidence["blooming"] > 0.4].mean() > 1.5 * before
