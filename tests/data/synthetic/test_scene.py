"""The canvas: what paint, apply and shade do to colors and evidence, and where objects are placed."""

from __future__ import annotations

import numpy as np
import pytest
from tests.data.synthetic.scenes import SIZE, empty_scene, forest_scene

from canopy.data.synthetic.scene import Sketch

RED = (0.8, 0.1, 0.1)
SQUARE = np.array([(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)])


def test_paint_mixes_by_the_mask_and_hides_other_labels() -> None:
    scene = empty_scene()
    mask_HW = np.zeros((SIZE, SIZE), np.float32)
    mask_HW[:, :32], mask_HW[:, 32:48] = 1, 0.5
    scene.evidence["primary"] = np.ones((SIZE, SIZE), np.float32)
    scene.paint(mask_HW, RED, "water")
    expected = np.outer([1, 0.5, 0], RED)
    np.testing.assert_allclose(scene.color_HWC[0, [0, 40, 60]], expected, rtol=1e-6)
    np.testing.assert_array_equal(scene.evidence["water"], mask_HW)
    np.testing.assert_array_equal(scene.evidence["primary"], 1 - mask_HW)


def test_paint_keeps_the_larger_evidence_of_its_own_label() -> None:
    scene = empty_scene()
    left_HW, all_HW = np.zeros((SIZE, SIZE), np.float32), np.full((SIZE, SIZE), 0.3, np.float32)
    left_HW[:, :32] = 1
    scene.paint(left_HW, RED, "water")
    scene.paint(all_HW, RED, "water")
    np.testing.assert_array_equal(scene.evidence["water"], np.maximum(left_HW, all_HW))
    scene.paint(all_HW, RED)  # without a label it only hides
    np.testing.assert_allclose(scene.evidence["water"], np.maximum(left_HW, all_HW) * 0.7, rtol=1e-6)


def test_paint_takes_one_color_per_pixel() -> None:
    scene = empty_scene()
    color_HWC = np.random.default_rng(0).random((SIZE, SIZE, 3), np.float32)
    scene.paint(np.ones((SIZE, SIZE), np.float32), color_HWC)
    np.testing.assert_allclose(scene.color_HWC, color_HWC, rtol=1e-6)


def test_apply_puts_a_sketch_on_the_canvas() -> None:
    scene, sketch = empty_scene(), Sketch(SIZE)
    sketch.polygon(SQUARE, RED)
    scene.apply(sketch, "habitation", texture=0.5, strength=0.6)
    color = scene.color_HWC[SIZE // 2, SIZE // 2]
    np.testing.assert_allclose(color, np.multiply(RED, 0.5 * 0.6), atol=0.005)
    assert scene.evidence["habitation"][SIZE // 2, SIZE // 2] == pytest.approx(0.6)
    assert scene.evidence["habitation"][0, 0] == 0
    np.testing.assert_array_equal(scene.color_HWC[0, 0], 0)


def test_shade_multiplies_the_canvas() -> None:
    scene = forest_scene()
    before_HWC, factor_HW = scene.color_HWC.copy(), np.linspace(0.5, 1, SIZE * SIZE, dtype=np.float32)
    scene.shade(factor_HW.reshape(SIZE, SIZE))
    np.testing.assert_array_equal(scene.color_HWC, before_HWC * factor_HW.reshape(SIZE, SIZE, 1))
    np.testing.assert_array_equal(scene.evidence["primary"], 1)


@pytest.mark.parametrize("size", [32, 64, 256])
def test_a_sketch_covers_the_area_of_its_shapes(size: int) -> None:
    square, line, dot = Sketch(size), Sketch(size), Sketch(size)
    square.polygon(SQUARE, RED)
    line.line(np.array([(-0.1, 0.5), (0.5, 0.5), (1.1, 0.5)]), 0.2, RED)
    dot.dot((0.5, 0.5), 0.25, RED)
    for sketch, area in ((square, 0.25), (line, 0.2), (dot, np.pi / 16)):
        mask_HW, color_HWC = sketch.finish()
        assert mask_HW.shape == (size, size)
        assert color_HWC.shape == (size, size, 3)
        assert 0 <= mask_HW.min() <= mask_HW.max() == 1
        assert mask_HW.mean() == pytest.approx(area, rel=0.1)
        np.testing.assert_allclose(color_HWC, mask_HW[:, :, None] * np.asarray(RED), atol=0.01)


def test_a_line_outside_the_chip_draws_nothing() -> None:
    sketch = Sketch(SIZE)
    sketch.line(np.array([(2.0, 2.0), (3.0, 3.0)]), 0.1, RED)
    assert sketch.finish()[0].max() == 0


def test_colors_are_close_to_their_palette_and_in_range() -> None:
    scene, palette = empty_scene(), ((0.2, 0.4, 0.6), (0.9, 0.95, 1.0))
    picked_NC = scene.picks(palette, 500, 0.06)
    assert picked_NC.shape == (500, 3)
    assert 0 <= picked_NC.min() <= picked_NC.max() <= 1
    distance_NP = np.abs(picked_NC[:, None] - np.asarray(palette)).max(axis=2)
    assert distance_NP.min(axis=1).max() < 0.25
    assert set(distance_NP.argmin(axis=1)) == {0, 1}
    assert all(0 <= value <= 1 for value in scene.pick(palette, 2.0))
    assert scene.tone(palette[0], 0.0) == pytest.approx(palette[0])


def test_spots_prefer_the_named_label_and_avoid_the_others() -> None:
    left, right = 0, 0
    for seed in range(20):
        scene = forest_scene(seed)
        water_HW = np.zeros((SIZE, SIZE), np.float32)
        water_HW[:, :32] = 1
        scene.evidence["water"] = water_HW
        assert ((scene.spot(0.1) > 0) & (scene.spot(0.1) < 1)).all()
        right += scene.spot(0.1)[0] > 0.5
        left += scene.spot(0.1, on="water")[0] < 0.5
    assert right == left == 20


def test_places_along_a_path_lie_on_it_and_inside_the_chip() -> None:
    scene = empty_scene()
    scene.paths["road"] = np.stack([np.linspace(-0.2, 1.2, 97), np.full(97, 0.5)], axis=1)
    places = scene.along("road", 40)
    assert places.shape == (40, 2)
    assert ((places > 0.08) & (places < 0.92)).all()
    assert set(map(tuple, places)) <= set(map(tuple, scene.paths["road"]))
    scene.paths["road"] = scene.paths["road"] + 5  # all outside: the middle of the path
    np.testing.assert_array_equal(scene.along("road", 2), np.tile(scene.paths["road"][48], (2, 1)))


def test_streams_make_a_scene_repeatable() -> None:
    assert empty_scene(5).sun == empty_scene(5).sun
    assert empty_scene(5).axis != empty_scene(6).axis
    assert empty_scene(5, size=32).sun == empty_scene(5, size=256).sun  # geometry is independent of the size
