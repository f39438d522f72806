"""Scenes for the tests of the painters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from canopy.data.synthetic.nature import forest
from canopy.data.synthetic.scene import Scene

SIZE = 64
Painter = Callable[[Scene], None]


def empty_scene(seed: int = 0, size: int = SIZE) -> Scene:
    """A black scene with the random streams of ``seed``."""
    return Scene(size, np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2]))


def forest_scene(seed: int = 0, size: int = SIZE) -> Scene:
    """A scene of forest alone."""
    scene = empty_scene(seed, size)
    forest(scene)
    return scene


def changed_pixels(painter: Painter, scene: Scene) -> NDArray[np.bool_]:
    """Pixels of ``scene`` whose color ``painter`` changes, shape (H, W)."""
    before_HWC = scene.color_HWC.copy()
    painter(scene)
    return np.asarray((scene.color_HWC != before_HWC).any(axis=2))


def check_painter(painter: Painter, label: str, *, only_label: bool = True) -> None:
    """Check what holds for every painter of a label, over the scenes of several seeds.

    Args:
        painter: draws on a scene.
        label: the label that it marks as visible.
        only_label: whether it draws nothing but its label, so that all other pixels stay.
    """
    for seed in range(6):
        scene = forest_scene(seed)
        changed_HW = changed_pixels(painter, scene)
        seen_HW = scene.evidence[label]
        assert scene.color_HWC.shape == (SIZE, SIZE, 3)
        assert scene.color_HWC.dtype == np.float32
        assert np.isfinite(scene.color_HWC).all()
        assert scene.color_HWC.min() >= 0, seed
        assert scene.color_HWC.max() < 1.6, seed
        assert seen_HW.shape == (SIZE, SIZE)
        assert seen_HW.min() >= 0
        assert seen_HW.max() <= 1
        assert seen_HW.mean() > 0.003, (label, seed)
        assert changed_HW[seen_HW > 0.01].all(), (label, seed)
        # What the label covers is no longer visible as forest.
        assert (scene.evidence["primary"] <= 1 - seen_HW + 1e-5).all(), (label, seed)
        if only_label:
            assert not changed_HW[seen_HW == 0].any(), (label, seed)
        same, other = forest_scene(seed), forest_scene(seed + 100)
        painter(same)
        painter(other)
        np.testing.assert_array_equal(same.color_HWC, scene.color_HWC)
        np.testing.assert_array_equal(same.evidence[label], seen_HW)
        assert (other.color_HWC != scene.color_HWC).mean() > 0.5, (label, seed)
