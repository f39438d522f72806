"""Noise fields, masks, paths and polygons."""

from __future__ import annotations

import numpy as np
import pytest

from canopy.data.synthetic import textures

SIZE = 64


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_grid_holds_pixel_centers_x_first() -> None:
    x_HW, y_HW = textures.grid(4)
    np.testing.assert_allclose(x_HW[0], [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_array_equal(y_HW, x_HW.T)


@pytest.mark.parametrize("size", [32, 64, 100])
def test_noise_has_unit_variance_and_follows_the_seed(size: int) -> None:
    fields = [textures.noise(rng(seed), size, 12) for seed in range(40)]
    assert fields[0].shape == (size, size)
    assert fields[0].dtype == np.float32
    assert 0.9 < np.std(fields) < 1.1
    assert abs(np.mean(fields)) < 0.1
    np.testing.assert_array_equal(textures.noise(rng(3), size, 12), fields[3])
    assert (fields[3] != fields[4]).mean() > 0.99


def test_more_cells_make_finer_noise() -> None:
    def roughness(cells: int) -> float:
        return float(
            np.mean([np.abs(np.diff(textures.noise(rng(s), SIZE, cells))).mean() for s in range(10)])
        )

    assert roughness(2) < roughness(8) / 2 < roughness(32) / 4


def test_noise_is_the_same_field_at_any_size() -> None:
    coarse_HW, fine_HW = (textures.noise(rng(1), size, 5) for size in (64, 256))
    shrunk_HW = fine_HW.reshape(64, 4, 64, 4).mean((1, 3))
    np.testing.assert_allclose(coarse_HW, shrunk_HW, atol=0.02)


def test_fractal_noise_has_unit_variance() -> None:
    fields = [textures.fractal(rng(seed), SIZE, 6, 3, gain=0.7) for seed in range(40)]
    assert 0.9 < np.std(fields) < 1.1
    one_octave = textures.fractal(rng(2), SIZE, 6, 1)
    np.testing.assert_allclose(one_octave, textures.noise(rng(2), SIZE, 6), rtol=1e-6)


def test_a_ramp_rises_from_0_to_1() -> None:
    steps = np.array([[-2.0, -0.5, -0.25, 0.0, 0.25, 0.5, 2.0]], np.float32)
    found = textures.ramp(steps, 1.0)
    np.testing.assert_allclose(found, [[0, 0, 0.15625, 0.5, 0.84375, 1, 1]])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cover_takes_the_highest_share(share: float) -> None:
    field_HW = textures.fractal(rng(), SIZE, 4, 3)
    mask_HW = textures.cover(field_HW, share, 0.01)
    assert 0 <= mask_HW.min() <= mask_HW.max() <= 1
    assert mask_HW.mean() == pytest.approx(share, abs=0.02)
    assert field_HW[mask_HW == 1].min() > field_HW[mask_HW == 0].max()


def test_turned_coordinates_are_a_rotation() -> None:
    x_HW, y_HW = textures.grid(SIZE)
    along_HW, across_HW = textures.turned(SIZE, np.pi / 2, (0.25, 0.5))
    np.testing.assert_allclose(along_HW, y_HW - 0.5, atol=1e-6)
    np.testing.assert_allclose(across_HW, 0.25 - x_HW, atol=1e-6)
    along_HW, across_HW = textures.turned(SIZE, 0.7, (0.2, 0.9))
    distance_HW = textures.distance(SIZE, (0.2, 0.9))
    np.testing.assert_allclose(np.hypot(along_HW, across_HW), distance_HW, atol=1e-6)


def test_distance_is_zero_at_the_center() -> None:
    distance_HW = textures.distance(SIZE, (10.5 / SIZE, 3.5 / SIZE))
    assert distance_HW[3, 10] == 0
    assert distance_HW[3, 42] == pytest.approx(0.5)


def test_the_slope_follows_the_direction() -> None:
    x_HW, _ = textures.grid(SIZE)
    hill_HW = (x_HW - 0.5) ** 2
    east_HW, west_HW = textures.slope(hill_HW, 0.0), textures.slope(hill_HW, np.pi)
    assert east_HW.std() == pytest.approx(1, abs=0.05)
    assert (east_HW[:, :30] < 0).all()
    assert (east_HW[:, 34:] > 0).all()
    np.testing.assert_allclose(east_HW, -west_HW, atol=1e-4)


def test_shifting_moves_whole_pixels_and_fills_with_0() -> None:
    field_HW = np.arange(1, 17, dtype=np.float32).reshape(4, 4)
    np.testing.assert_array_equal(textures.shifted(field_HW, 0, 0), field_HW)
    right_down = textures.shifted(field_HW, 0.25, 0.5)
    np.testing.assert_array_equal(right_down[2:, 1:], field_HW[:2, :3])
    assert right_down[:2].sum() == right_down[:, 0].sum() == 0
    np.testing.assert_array_equal(textures.shifted(field_HW, -0.25, 0)[:, :3], field_HW[:, 1:])


def test_paths_go_through_their_point_with_even_steps() -> None:
    path = textures.wander(rng(1), (0.3, 0.6), 0.4, sway=0.8, bend=0.5, waves=1.0)
    assert path.shape == (97, 2)
    np.testing.assert_allclose(path[48], (0.3, 0.6))
    np.testing.assert_allclose(np.hypot(*np.diff(path, axis=0).T), 2.4 / 96)
    np.testing.assert_array_equal(
        path, textures.wander(rng(1), (0.3, 0.6), 0.4, sway=0.8, bend=0.5, waves=1.0)
    )


def test_a_path_without_sway_and_bend_is_straight() -> None:
    path = textures.wander(rng(), (0.5, 0.5), 0.4, sway=0.0, bend=0.0, waves=1.0)
    steps = np.diff(path, axis=0)
    np.testing.assert_allclose(np.arctan2(steps[:, 1], steps[:, 0]), 0.4)


def test_points_outside_are_mirrored_into_the_chip() -> None:
    points = np.array([(0.2, 0.9), (-0.2, 1.3), (1.9, -0.9)])
    np.testing.assert_allclose(textures.folded(points), [(0.2, 0.9), (0.2, 0.7), (0.1, 0.9)])


def test_blobs_lie_around_their_center() -> None:
    points = textures.blob(rng(), (0.4, 0.6), 0.2, 9, 0.4)
    assert points.shape == (9, 2)
    reach = np.hypot(*(points - (0.4, 0.6)).T)
    assert ((reach >= 0.2 * 0.6 - 1e-9) & (reach <= 0.2 * 1.4 + 1e-9)).all()
    regular = np.hypot(*(textures.blob(rng(), (0.4, 0.6), 0.2, 9, 0.0) - (0.4, 0.6)).T)
    np.testing.assert_allclose(regular, 0.2)
