"""Blending against a plain loop; windows, cells and mirrored borders."""

from __future__ import annotations

import numpy as np
import pytest

from canopy.inference.scenes.blending import (
    blend,
    cell_shares,
    filled,
    mirrored,
    window_weights,
    windows_of,
)


@pytest.mark.parametrize(("size", "stride"), [(32, 32), (32, 16), (32, 10), (64, 7)])
def test_weights_are_the_integral_of_hanns_window(size: int, stride: int) -> None:
    weights = window_weights(size, stride)
    fine = np.sin(np.pi * (np.arange(size * 1000) + 0.5) / (size * 1000)) ** 2
    expected = [fine[n * stride * 1000 : (n + 1) * stride * 1000].sum() for n in range(-(-size // stride))]
    assert weights == pytest.approx(np.array(expected) / fine.sum(), abs=5e-3)
    assert weights.min() > 0


def test_a_cell_is_the_weighted_mean_of_its_windows() -> None:
    rng = np.random.default_rng(1)
    probs_HWK = rng.random((5, 6, 2)).astype(np.float32)
    probs_HWK[2, 3] = np.nan
    weights = window_weights(30, 10)
    found_HWK = blend(probs_HWK, weights, 0, 7, 8)
    for i in range(7):
        for j in range(8):
            total, weight = np.zeros(2), 0.0
            for y in range(max(0, i - 2), min(5, i + 1)):
                for x in range(max(0, j - 2), min(6, j + 1)):
                    if np.isfinite(probs_HWK[y, x]).all():
                        share = weights[i - y] * weights[j - x]
                        total, weight = total + share * probs_HWK[y, x], weight + share
            assert found_HWK[i, j] == pytest.approx(total / weight, rel=1e-5)
    strip_HWK = blend(probs_HWK[1:], weights, 1 - 3, 2, 8)
    np.testing.assert_array_equal(strip_HWK, found_HWK[3:5])


def test_equal_windows_give_equal_cells_without_seams() -> None:
    probs_HWK = np.full((4, 4, 1), 0.3, np.float32)
    assert blend(probs_HWK, window_weights(64, 16), 0, 7, 7) == pytest.approx(0.3)


def test_cells_without_any_window_have_no_value() -> None:
    probs_HWK = np.full((2, 2, 1), np.nan, np.float32)
    probs_HWK[0, 0] = 0.5
    found_HW = blend(probs_HWK, window_weights(4, 2), 0, 3, 3)[..., 0]
    expected = np.zeros((3, 3), bool)
    expected[:2, :2] = True
    np.testing.assert_array_equal(np.isfinite(found_HW), expected)


def test_windows_are_views_at_the_stride() -> None:
    pixels_HWC = np.arange(10 * 12 * 3).reshape(10, 12, 3)
    found = windows_of(pixels_HWC, 4, 3, (3, 3))
    assert found.shape == (3, 3, 4, 4, 3)
    np.testing.assert_array_equal(found[1, 2], pixels_HWC[3:7, 6:10])


def test_shares_count_only_pixels_of_the_scene() -> None:
    valid_HW = np.ones((5, 7), bool)
    valid_HW[:2, :2] = False
    shares_HW = cell_shares(valid_HW, 4, (3, 2))
    assert shares_HW.tolist() == [[0.75, 1], [1, 1], [0, 0]]


def test_borders_are_mirrored_and_gaps_filled_with_the_chips_mean() -> None:
    pixels_HWC = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    assert mirrored(pixels_HWC, 3, 4)[..., 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5]]
    chips_nHWC = np.array([[[[10], [20]], [[99], [30]]]], np.uint8)
    valid_nHW = np.array([[[True, True], [False, True]]])
    assert filled(chips_nHWC, valid_nHW)[0, 1, 0, 0] == 20
    assert chips_nHWC[0, 1, 0, 0] == 99
