"""Augmentation: against torchvision image by image, the same in parts as in whole, different per image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from numpy.typing import NDArray
from torch import Tensor

from canopy.config import AugmentConfig
from canopy.data.augment import (
    AUGMENT_PRESETS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    apply,
    blur,
    colour_transform,
    draw,
    move_by_gather,
    move_by_views,
    move_pixels,
    normalise,
    recolour,
    rotate,
)
from canopy.data.mixing import cutmix, mix, mixup

ENHANCED = AUGMENT_PRESETS["enhanced"]
ALL = AugmentConfig(**{**ENHANCED.model_dump(), "crop_padding": 5})


def chips(count: int = 8, size: int = 24) -> Tensor:
    """Smooth coloured images with some noise, uint8 (N, H, W, 3)."""
    generator = torch.Generator().manual_seed(0)
    coarse = 255 * torch.rand(count, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)
    noisy = smooth + 6 * torch.randn(smooth.shape, generator=generator)
    return noisy.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def nchw(images_NHWC: Tensor) -> Tensor:
    return images_NHWC.permute(0, 3, 1, 2)


# Drawing


def test_drawing_is_a_function_of_the_generator() -> None:
    images = chips()
    first, again = (apply(images, draw(ALL, 8, rng(3))) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, apply(images, draw(ALL, 8, rng(4))))


def test_configs_share_what_they_both_ask_for() -> None:
    """Paired comparisons: leaving one step out leaves the others' draws as they were."""
    with_colour, without = draw(ALL, 8, rng()), draw(AUGMENT_PRESETS["flips"], 8, rng())
    assert with_colour.symmetry_N is not None
    np.testing.assert_array_equal(with_colour.symmetry_N, without.symmetry_N)
    left_out = (without.colour_N33, without.angle_N, without.blur_N, without.shift_N2)
    assert all(array is None for array in left_out)


def test_draws_cover_their_ranges() -> None:
    params = draw(ALL, 20_000, rng())
    assert params.symmetry_N is not None
    assert params.shift_N2 is not None
    assert params.angle_N is not None
    assert params.blur_N is not None
    counts = np.bincount(params.symmetry_N, minlength=8)
    assert len(counts) == 8
    np.testing.assert_allclose(counts / 20_000, 1 / 8, atol=0.01)
    np.testing.assert_allclose(np.bincount(params.shift_N2[:, 0] + 5) / 20_000, 1 / 11, atol=0.01)
    assert np.degrees(np.abs(params.angle_N)).max() == pytest.approx(90, abs=0.1)
    assert np.mean(params.blur_N > 0) == pytest.approx(0.2, abs=0.01)
    assert 0.1 <= params.blur_N[params.blur_N > 0].min() < 0.11
    assert params.colour_N33 is not None
    grey = np.ptp(params.colour_N33, axis=1).max(axis=1) < 1e-6
    assert np.mean(grey) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("config", [*AUGMENT_PRESETS.values(), ALL], ids=[*AUGMENT_PRESETS, "all"])
def test_a_rank_takes_its_slice_of_the_global_batch(config: AugmentConfig) -> None:
    images, params = chips(16), draw(config, 16, rng())
    whole = apply(images, params)
    assert len(params[4:12]) == 8
    assert torch.equal(apply(images[4:12], params[4:12]), whole[4:12])
    assert torch.equal(torch.cat([apply(images[i : i + 1], params[i : i + 1]) for i in range(16)]), whole)


def test_each_image_gets_its_own_parameters() -> None:
    images = chips(1).repeat(12, 1, 1, 1)
    for name in ("brightness", "contrast", "saturation", "hue"):
        config = AugmentConfig.model_validate({"flips": False, name: 0.3})
        out = apply(images, draw(config, 12, rng()))
        assert len({image.numpy().tobytes() for image in out}) == 12, name


def test_the_plans_recipe() -> None:
    jitter = (ENHANCED.brightness, ENHANCED.contrast, ENHANCED.saturation, ENHANCED.hue)
    assert jitter == (0.3, 0.3, 0.3, 0.15)
    assert (ENHANCED.greyscale, ENHANCED.blur, ENHANCED.rotate_degrees, ENHANCED.flips) == (
        0.1,
        0.2,
        90,
        True,
    )


def test_input_is_left_alone_and_nothing_asked_changes_nothing() -> None:
    images = chips()
    before = images.clone()
    out = apply(images, draw(ALL, 8, rng()))
    assert torch.equal(images, before)
    assert (out.dtype, out.shape, out.is_contiguous()) == (torch.uint8, images.shape, True)
    assert torch.equal(apply(images, draw(AUGMENT_PRESETS["none"], 8, rng())), before)


# Moving pixels


def test_the_eight_symmetries_are_all_different_and_only_move_pixels() -> None:
    image = chips(1)
    turned = move_pixels(image.repeat(8, 1, 1, 1), np.arange(8), None)
    expected = [torch.rot90(flipped, k, (0, 1)) for k in range(4) for flipped in (image[0], image[0].flip(1))]
    assert {t.numpy().tobytes() for t in turned} == {t.contiguous().numpy().tobytes() for t in expected}
    assert torch.equal(turned[1], image[0].flip(1))
    assert torch.equal(turned[2], image[0].flip(0))
    assert torch.equal(turned[4], image[0].transpose(0, 1))


def test_crop_is_reflect_padding_and_cutting() -> None:
    images, shift_N2 = chips(4), np.array([[0, 0], [-3, 2], [5, -5], [1, 4]])
    cropped = move_pixels(images, None, shift_N2)
    padded = torch.nn.functional.pad(nchw(images).float(), (5, 5, 5, 5), mode="reflect")
    for n, (down, right) in enumerate((shift_N2 + 5).tolist()):
        expected = padded[n, :, down : down + 24, right : right + 24]
        assert torch.equal(nchw(cropped)[n].float(), expected)


@pytest.mark.parametrize(("padding", "size"), [(0, 24), (7, 24), (40, 16)])
def test_processor_and_gpu_kernels_move_pixels_alike(padding: int, size: int) -> None:
    images, generator = chips(40, size), rng()
    symmetry_N, shift_N2 = generator.integers(0, 8, 40), generator.integers(-padding, padding + 1, (40, 2))
    by_views = move_by_views(images.numpy(), symmetry_N, shift_N2)
    np.testing.assert_array_equal(by_views, move_by_gather(images, symmetry_N, shift_N2).numpy())


def test_images_that_are_not_square_may_flip_but_not_transpose() -> None:
    images = chips(3)[:, :, :17]
    flipped = move_pixels(images, np.array([0, 1, 2]), None)
    assert torch.equal(flipped[1], images[1].flip(1))
    with pytest.raises(AssertionError):
        move_pixels(images, np.array([0, 1, 4]), None)


# Computing with pixels


def test_rotation_by_quarter_turns_and_against_torchvision() -> None:
    x_NCHW = nchw(chips(5)).float().contiguous()
    quarter = np.float32(np.pi / 2) * np.arange(5, dtype=np.float32)
    turned = rotate(x_NCHW, quarter)
    for n in range(5):
        torch.testing.assert_close(turned[n], torch.rot90(x_NCHW[n], n, (1, 2)), atol=2e-2, rtol=0)
    angles = np.array([10, -25, 40, 75, -90])
    turned = rotate(x_NCHW, np.radians(angles).astype(np.float32))
    for n, angle in enumerate(angles.tolist()):
        expected = tv.rotate(x_NCHW[n], angle, interpolation=tv.InterpolationMode.BILINEAR)
        inside = (slice(None), slice(7, 17), slice(7, 17))  # torchvision fills with black, we reflect
        torch.testing.assert_close(turned[n][inside], expected[inside], atol=0.05, rtol=0)


FACTORS = np.array([0.7, 0.9, 1.0, 1.1, 1.3])
ONES, NEVER = np.ones(5), np.zeros(5, bool)


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation", "greyscale"])
def test_colour_against_torchvision(kind: str) -> None:
    x_NCHW = 60 + nchw(chips(5)).float() / 4  # away from 0 and 255, where torchvision clips
    scale: list[NDArray[np.float64]] = [ONES, ONES, ONES]
    if kind != "greyscale":
        scale[["brightness", "contrast", "saturation"].index(kind)] = FACTORS
    grey_N = ~NEVER if kind == "greyscale" else NEVER
    got = recolour(x_NCHW, *colour_transform(scale[0], scale[1], scale[2], 0 * ONES, grey_N))
    theirs: Any = {
        "brightness": tv.adjust_brightness,
        "contrast": tv.adjust_contrast,
        "saturation": tv.adjust_saturation,
        "greyscale": lambda image, _: tv.rgb_to_grayscale(image, 3),
    }[kind]
    for n, factor in enumerate(FACTORS.tolist()):
        expected = 255 * theirs(x_NCHW[n] / 255, factor)
        torch.testing.assert_close(got[n], expected, atol=0.05, rtol=0)


def test_jitter_in_one_step_is_jitter_step_by_step() -> None:
    x_NCHW = nchw(chips(5)).float()
    generator = rng()
    b, c, s = generator.uniform(0.7, 1.3, (3, 5))
    h = generator.uniform(-0.15, 0.15, 5)
    at_once = recolour(x_NCHW, *colour_transform(b, c, s, h, NEVER))
    stepwise = x_NCHW
    for step in (
        (b, ONES, ONES, 0 * h),
        (ONES, c, ONES, 0 * h),
        (ONES, ONES, s, 0 * h),
        (ONES, ONES, ONES, h),
    ):
        stepwise = recolour(stepwise, *colour_transform(step[0], step[1], step[2], step[3], NEVER))
    torch.testing.assert_close(at_once, stepwise, atol=1e-2, rtol=0)


def test_hue_turns_colours_and_keeps_luma_and_greys() -> None:
    x_NCHW = nchw(chips(3)).float()
    turn = np.array([0.1, -0.15, 0.5])
    one, never = np.ones(3), np.zeros(3, bool)
    turned = recolour(x_NCHW, *colour_transform(one, one, one, turn, never))
    torch.testing.assert_close(
        tv.rgb_to_grayscale(turned, 1), tv.rgb_to_grayscale(x_NCHW, 1), atol=0.1, rtol=0
    )
    assert (turned - x_NCHW).abs().amax(dim=(1, 2, 3)).min() > 10
    back = recolour(turned, *colour_transform(one, one, one, -turn, never))
    torch.testing.assert_close(back, x_NCHW, atol=0.05, rtol=0)
    grey = torch.full((3, 3, 2, 2), 99.0)
    torch.testing.assert_close(recolour(grey, *colour_transform(one, one, one, turn, never)), grey)
    # the same sense as torchvision's: a little towards yellow for red, not towards magenta
    red = torch.tensor([200.0, 60, 60])[None, :, None, None].repeat(3, 1, 2, 2)
    ours = recolour(red, *colour_transform(one, one, one, np.full(3, 0.05), never))[0, :, 0, 0]
    theirs = 255 * tv.adjust_hue(red[0] / 255, 0.05)[:, 0, 0]
    assert ours[1] > ours[2]
    assert theirs[1] > theirs[2]


def test_blur_against_torchvision() -> None:
    x_NCHW = nchw(chips(4)).float()
    sigma_N = np.array([0, 0.1, 0.8, 2.0], np.float32)
    got = blur(x_NCHW, sigma_N)
    assert torch.equal(got[0], x_NCHW[0])
    for n in range(1, 4):
        expected = tv.gaussian_blur(x_NCHW[n], [3, 3], [float(sigma_N[n])])
        torch.testing.assert_close(got[n], expected, atol=1e-3, rtol=0)


def test_normalise_against_torchvision() -> None:
    images = chips()
    expected = tv.normalize(nchw(images).float() / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
    got = normalise(images)
    assert got.dtype == torch.float32
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_images() -> None:
    images = chips(32)
    for config in (AugmentConfig(crop_padding=4), ALL):
        params = draw(config, 32, rng())
        here, there = apply(images, params), apply(images.cuda(), params).cpu()
        # computed pixels may round to the neighbouring value, moved ones may not
        assert (here.int() - there.int()).abs().max() <= (config is ALL)


# Mixing


def targets(count: int = 8, labels: int = 5) -> Tensor:
    return (torch.rand(count, labels, generator=torch.Generator().manual_seed(1)) < 0.4).float()


def test_mixup_by_hand() -> None:
    images = torch.tensor([0.0, 100.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    y_NK = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    mixed, soft_NK = mixup(images, y_NK, torch.tensor([1, 0]), 0.7)
    torch.testing.assert_close(mixed[:, 0, 0, 0], torch.tensor([30.0, 70.0]))
    torch.testing.assert_close(soft_NK, torch.tensor([[0.7, 0, 1], [0.3, 0, 1]]))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_cutmix_labels_are_weighted_by_area(layout: str) -> None:
    shape = (2, 10, 10, 3) if layout == "NHWC" else (2, 3, 10, 10)
    images = torch.tensor([0, 1]).view(2, 1, 1, 1).expand(shape).to(torch.uint8)
    y_NK = torch.tensor([[1.0, 0], [0, 1]])
    for share, centre in ((0.75, (0.5, 0.5)), (0.4, (0.05, 0.95)), (0.0, (0.5, 0.5)), (1.0, (0.3, 0.3))):
        mixed, soft_NK = cutmix(images, y_NK, torch.tensor([1, 0]), share, np.array(centre))
        pasted = mixed[0].float().mean()  # the share of ones in the image of zeros
        torch.testing.assert_close(
            soft_NK, torch.stack([1 - y_NK[0] + 0, y_NK[0]]).lerp(y_NK, 1 - float(pasted))
        )
        if centre == (0.5, 0.5):
            assert float(pasted) == pytest.approx(1 - share, abs=0.1)
    assert images[0].max() == 0


def test_cutmix_union_keeps_both_labels() -> None:
    y_NK = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    _, union_NK = cutmix(images, y_NK, torch.tensor([1, 0]), 0.5, np.array([0.5, 0.5]), union=True)
    torch.testing.assert_close(union_NK, torch.tensor([[1.0, 1, 0], [1, 1, 0]]))
    config = AugmentConfig(cutmix_alpha=1, cutmix_labels="union")
    _, mixed_NK = mix(images, y_NK, config, rng())
    assert set(mixed_NK.flatten().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("alphas", [(0.2, 0), (0, 1.0), (0.2, 1.0)], ids=str)
def test_mixing_keeps_the_label_mass_and_is_reproducible(alphas: tuple[float, float]) -> None:
    config = AugmentConfig(mixup_alpha=alphas[0], cutmix_alpha=alphas[1])
    images, y_NK = chips(), targets()
    mixed, soft_NK = mix(images, y_NK, config, rng(2))
    again, soft_again_NK = mix(images, y_NK, config, rng(2))
    assert torch.equal(mixed, again)
    assert torch.equal(soft_NK, soft_again_NK)
    assert mixed.dtype == torch.uint8
    assert ((soft_NK >= 0) & (soft_NK <= 1)).all()
    # each image gives what its partner takes: a permutation conserves every label's total
    torch.testing.assert_close(soft_NK.sum(0), y_NK.sum(0))


def test_a_coin_decides_between_mixup_and_cutmix() -> None:
    images = torch.tensor([0, 250] * 6).view(12, 1, 1, 1).expand(12, 8, 8, 3).to(torch.uint8)
    config, cut = AugmentConfig(mixup_alpha=1, cutmix_alpha=1), 0
    for seed in range(200):
        mixed, _ = mix(images, targets(12), config, rng(seed))
        cut += set(mixed.flatten().tolist()) <= {0, 250}  # mixup makes values in between
    assert 75 <= cut <= 125


def test_no_mixing_asked_changes_nothing() -> None:
    images, y_NK = chips(), targets()
    mixed, soft_NK = mix(images, y_NK, AugmentConfig(), rng())
    assert mixed is images
    assert torch.equal(soft_NK, y_NK)
