"""Clouds, haze, and the model of light and sensor."""

from __future__ import annotations

import numpy as np
import pytest
from tests.data.synthetic.scenes import SIZE, Painter, empty_scene, forest_scene

from canopy.data.synthetic import sky


@pytest.mark.parametrize("painter", [sky.partly_cloudy, sky.haze, sky.cloudy])
def test_weather_is_repeatable_and_in_range(painter: Painter) -> None:
    for seed in range(6):
        scene, same, other = forest_scene(seed), forest_scene(seed), forest_scene(seed + 100)
        for each in (scene, same, other):
            painter(each)
        assert scene.color_HWC.shape == (SIZE, SIZE, 3)
        assert scene.color_HWC.dtype == np.float32
        assert 0 <= scene.color_HWC.min() <= scene.color_HWC.max() < 1.6
        np.testing.assert_array_equal(same.color_HWC, scene.color_HWC)
        assert (other.color_HWC != scene.color_HWC).mean() > 0.5


def test_broken_clouds_leave_half_of_each_label_visible() -> None:
    for seed in range(10):
        scene = forest_scene(seed)
        before_HWC = scene.color_HWC.copy()
        sky.partly_cloudy(scene)
        cloud_HW = scene.evidence["partly_cloudy"]
        assert scene.evidence["primary"].mean() >= 0.5, seed
        assert cloud_HW.max() > 0.5, seed
        thick_HW = cloud_HW > 0.9
        assert (scene.color_HWC[thick_HW] > before_HWC[thick_HW]).all(), seed
        clear_HW = cloud_HW == 0
        # Where there is no cloud, the ground is as before or in shadow.
        assert (scene.color_HWC[clear_HW] <= before_HWC[clear_HW]).all(), seed


def test_haze_brightens_and_takes_contrast() -> None:
    for seed in range(6):
        scene = forest_scene(seed)
        mean, contrast = scene.color_HWC.mean(), scene.color_HWC[:, :, 1].std()
        sky.haze(scene)
        assert scene.color_HWC.mean() > mean
        assert scene.color_HWC[:, :, 1].std() < contrast
        assert list(scene.evidence) == ["primary"]


def test_full_cloud_is_gray_and_independent_of_the_ground() -> None:
    for seed in range(6):
        scene = forest_scene(seed)
        sky.cloudy(scene)
        red_HW, green_HW, blue_HW = np.moveaxis(scene.color_HWC, 2, 0)
        np.testing.assert_allclose(red_HW, 0.99 * green_HW, rtol=1e-5)
        np.testing.assert_array_equal(green_HW, blue_HW)
        brighter = forest_scene(seed)
        brighter.color_HWC += np.float32(0.3)
        sky.cloudy(brighter)
        np.testing.assert_array_equal(brighter.color_HWC, scene.color_HWC)


@pytest.mark.parametrize("size", [32, 64, 100])
def test_the_sensor_gives_bytes_and_leaves_the_scene(size: int) -> None:
    scene = forest_scene(0, size)
    before_HWC = scene.color_HWC.copy()
    image_HWC = sky.expose(scene)
    assert image_HWC.shape == (size, size, 3)
    assert image_HWC.dtype == np.uint8
    assert image_HWC.std() > 0
    np.testing.assert_array_equal(scene.color_HWC, before_HWC)
    np.testing.assert_array_equal(sky.expose(forest_scene(0, size)), image_HWC)
    assert (sky.expose(forest_scene(1, size)) != image_HWC).mean() > 0.5


def test_the_sensor_orders_brightness_and_never_wraps_around() -> None:
    means = []
    for level in (0.0, 0.2, 0.5, 0.9, 1.5):
        scene = empty_scene(2)
        scene.color_HWC[:] = level
        image_HWC = sky.expose(scene)
        means.append(float(image_HWC.mean()))
        assert np.ptp(image_HWC.astype(int)) < 100, level  # a byte that wraps would be 255 away
    assert means[:4] == sorted(means[:4])
    assert means[3] > 150
    assert means[4] >= means[3]
