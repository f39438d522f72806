"""Painters of fields, small plots and fresh burns."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from tests.data.synthetic.scenes import Painter, check_painter, forest_scene

from canopy.data.synthetic import farming


@pytest.mark.parametrize(
    ("painter", "label", "only_label"),
    [
        (partial(farming.agriculture, share=0.4), "agriculture", True),
        (farming.cultivation, "cultivation", True),
        (farming.slash_burn, "slash_burn", False),
    ],
)
def test_painters_mark_their_label(painter: Painter, label: str, only_label: bool) -> None:
    check_painter(painter, label, only_label=only_label)


@pytest.mark.parametrize("share", [0.22, 0.4, 0.6])
def test_fields_cover_about_the_share(share: float) -> None:
    for seed in range(6):
        scene = forest_scene(seed)
        farming.agriculture(scene, share)
        assert share - 0.05 < scene.evidence["agriculture"].mean() < share + 0.13, seed


def test_a_share_of_one_leaves_no_forest() -> None:
    scene = forest_scene()
    farming.agriculture(scene, 1.0)
    np.testing.assert_array_equal(scene.evidence["agriculture"], 1)
    np.testing.assert_array_equal(scene.evidence["primary"], 0)


def test_small_plots_settle_along_a_path() -> None:
    near = []
    for seed in range(10):
        scene = forest_scene(seed)
        scene.paths["road"] = np.stack([np.linspace(-0.2, 1.2, 97), np.full(97, 0.2)], axis=1)
        farming.cultivation(scene)
        seen_HW = scene.evidence["cultivation"]
        near.append(float(seen_HW[: scene.size // 2].sum() / seen_HW.sum()))
    assert np.mean(near) > 0.6, near


def test_burnt_ground_is_darker_than_the_forest_and_smoke_leaves_its_evidence() -> None:
    for seed in range(6):
        scene = forest_scene(seed)
        before = scene.color_HWC.mean()
        farming.slash_burn(scene)
        seen_HW = scene.evidence["slash_burn"]
        assert seen_HW.max() > 0.99, seed  # where smoke hides the ground, too
        darkest_HW = (seen_HW > 0.99) & (scene.color_HWC.mean(axis=2) < before)
        assert darkest_HW.any(), seed
