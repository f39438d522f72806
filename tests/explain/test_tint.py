"""Colors over an image: their place, their strength."""

from __future__ import annotations

import numpy as np

from canopy.explain.tint import COOL, COVER, WARM, tint


def test_the_strongest_value_has_the_full_color_and_smaller_maps_are_interpolated() -> None:
    tile = np.full((4, 4, 3), 100, np.uint8)
    shown = tint(tile, np.array([[1, -1], [0, 0]], np.float32), 1.0).astype(float)
    np.testing.assert_allclose(shown[0, 0], 100 * (1 - COVER) + COVER * np.array(WARM), atol=1)
    np.testing.assert_allclose(shown[0, 3], 100 * (1 - COVER) + COVER * np.array(COOL), atol=1)
    np.testing.assert_allclose(shown[3, 1], 100, atol=1)
    faint = tint(tile, np.array([[1, -1], [0, 0]], np.float32), 10.0)
    assert np.abs(faint.astype(float) - 100).max() < 0.2 * np.abs(shown - 100).max()
