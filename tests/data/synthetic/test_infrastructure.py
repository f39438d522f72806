"""Painters of roads, houses, logging tracks and mines."""

from __future__ import annotations

import numpy as np
import pytest
from tests.data.synthetic.scenes import Painter, changed_pixels, check_painter, forest_scene

from canopy.data.synthetic import infrastructure


@pytest.mark.parametrize(
    ("painter", "label", "only_label"),
    [
        (infrastructure.road, "road", False),
        (infrastructure.habitation, "habitation", False),
        (infrastructure.selective_logging, "selective_logging", True),
        (infrastructure.artisinal_mine, "artisinal_mine", True),
        (infrastructure.conventional_mine, "conventional_mine", False),
    ],
)
def test_painters_mark_their_label(painter: Painter, label: str, only_label: bool) -> None:
    check_painter(painter, label, only_label=only_label)


def test_a_road_has_a_path_and_a_cleared_strip_that_is_no_road() -> None:
    scene = forest_scene()
    changed_HW = changed_pixels(infrastructure.road, scene)
    path = scene.paths["road"]
    assert path.shape == (97, 2)
    inside = path[((path > 0) & (path < 1)).all(axis=1)]
    column, row = (inside * scene.size).astype(int).T
    assert scene.evidence["road"][row, column].mean() > 0.5
    strip_HW = changed_HW & (scene.evidence["road"] == 0)
    assert strip_HW.any()
    assert (scene.evidence["primary"][strip_HW] < 1).all()


def test_an_artisanal_mine_lies_along_the_river() -> None:
    scene = forest_scene(1)
    river = np.stack([np.linspace(-0.2, 1.2, 97), np.full(97, 0.25)], axis=1)
    scene.paths["river"] = river
    infrastructure.artisinal_mine(scene)
    assert scene.paths["creek"] is river
    seen_HW = scene.evidence["artisinal_mine"]
    assert seen_HW[: scene.size // 2].sum() > 3 * seen_HW[scene.size // 2 :].sum()


def test_a_conventional_mine_is_one_object_around_a_center() -> None:
    scene = forest_scene(2)
    infrastructure.conventional_mine(scene)
    row, column = np.nonzero(scene.evidence["conventional_mine"] > 0.99)
    center_row, center_column = int(row.mean()), int(column.mean())
    assert scene.evidence["conventional_mine"][center_row, center_column] > 0.5
