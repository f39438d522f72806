"""Augmentation: parameters per image, slices of a batch, and torchvision's results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from numpy.typing import NDArray
from torch import Tensor

from canopy.config import AUGMENT_PRESETS, AugmentConfig, derive
from canopy.data.transforms.augment import apply_augmentation, draw_params, gaussian_blur, rotate
from canopy.data.transforms.geometric import apply_geometry

ENHANCED = AUGMENT_PRESETS["enhanced"]
ALL = AugmentConfig(**{**ENHANCED.model_dump(), "crop_padding": 5})


def chips(count: int = 8, size: int = 24) -> Tensor:
    """Smooth colored images with some noise, uint8 (N, H, W, 3)."""
    generator = torch.Generator().manual_seed(0)
    coarse = 255 * torch.rand(count, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)
    noisy = smooth + 6 * torch.randn(smooth.shape, generator=generator)
    return noisy.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def nchw(images_NHWC: Tensor) -> Tensor:
    return images_NHWC.permute(0, 3, 1, 2)


# Drawing parameters


def test_parameters_depend_on_the_generator_only() -> None:
    images = chips()
    first, again = (apply_augmentation(images, draw_params(ALL, 8, rng(3))) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, apply_augmentation(images, draw_params(ALL, 8, rng(4))))


def test_configs_share_the_draws_of_their_common_steps() -> None:
    """Leaving one step out does not change the draws of the others, for paired comparisons."""
    with_color, without = draw_params(ALL, 8, rng()), draw_params(AUGMENT_PRESETS["flips"], 8, rng())
    assert with_color.symmetry_N is not None
    np.testing.assert_array_equal(with_color.symmetry_N, without.symmetry_N)
    left_out = (without.color_N33, without.angle_N, without.blur_N, without.shift_N2)
    assert all(array is None for array in left_out)


def test_parameters_cover_their_ranges() -> None:
    params = draw_params(ALL, 20_000, rng())
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
    assert params.hue_N is not None
    assert params.gray_N is not None
    assert np.abs(params.hue_N).max() == pytest.approx(0.15, abs=0.001)
    assert np.mean(params.gray_N) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("config", [*AUGMENT_PRESETS.values(), ALL], ids=[*AUGMENT_PRESETS, "all"])
def test_a_rank_takes_its_slice_of_the_global_batch(config: AugmentConfig) -> None:
    images, params = chips(16), draw_params(config, 16, rng())
    whole = apply_augmentation(images, params)
    assert len(params[4:12]) == 8
    assert torch.equal(apply_augmentation(images[4:12], params[4:12]), whole[4:12])
    assert torch.equal(
        torch.cat([apply_augmentation(images[i : i + 1], params[i : i + 1]) for i in range(16)]), whole
    )


def test_each_image_gets_its_own_parameters() -> None:
    images = chips(1).repeat(12, 1, 1, 1)
    for name in ("brightness", "contrast", "saturation", "hue"):
        config = AugmentConfig.model_validate({"flips": False, name: 0.3})
        out = apply_augmentation(images, draw_params(config, 12, rng()))
        assert len({image.numpy().tobytes() for image in out}) == 12, name


def test_the_enhanced_preset() -> None:
    jitter = (ENHANCED.brightness, ENHANCED.contrast, ENHANCED.saturation, ENHANCED.hue)
    assert jitter == (0.3, 0.3, 0.3, 0.15)
    assert (ENHANCED.grayscale, ENHANCED.blur, ENHANCED.rotate_degrees, ENHANCED.flips) == (
        0.1,
        0.2,
        90,
        True,
    )


def test_the_input_is_unchanged_and_no_step_changes_nothing() -> None:
    images = chips()
    before = images.clone()
    out = apply_augmentation(images, draw_params(ALL, 8, rng()))
    assert torch.equal(images, before)
    assert (out.dtype, out.shape, out.is_contiguous()) == (torch.uint8, images.shape, True)
    assert torch.equal(apply_augmentation(images, draw_params(AUGMENT_PRESETS["none"], 8, rng())), before)


# Changing pixel values


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
        inside = (slice(None), slice(7, 17), slice(7, 17))  # torchvision fills with black, Canopy reflects
        torch.testing.assert_close(turned[n][inside], expected[inside], atol=0.05, rtol=0)


def test_all_steps_against_torchvision_image_by_image() -> None:
    """Each image of a batch equals the result of torchvision's functions with that image's parameters."""
    images = (60 + chips(16).float() / 4).to(torch.uint8)  # no step clips
    config = AugmentConfig.model_validate({**ENHANCED.model_dump(), "rotate_degrees": 0, "grayscale": 0.5})
    params = draw_params(config, 16, rng(7))
    assert params.symmetry_N is not None
    assert params.hue_N is not None
    assert params.gray_N is not None
    assert params.blur_N is not None
    assert 0 < params.gray_N.sum() < 16
    assert (params.blur_N > 0).any()
    factors = draw_factors(config, 16, 7)
    got = apply_augmentation(images, params)
    for n in range(16):
        x = nchw(apply_geometry(images[n : n + 1], params.symmetry_N[n : n + 1], None))[0].float() / 255
        x = tv.adjust_brightness(x, factors[0][n])
        x = tv.adjust_contrast(x, factors[1][n])
        x = tv.adjust_saturation(x, factors[2][n])
        x = tv.adjust_hue(x, float(params.hue_N[n]))
        x = tv.rgb_to_grayscale(x, 3) if params.gray_N[n] else x
        x = tv.gaussian_blur(x, [3, 3], [float(params.blur_N[n])]) if params.blur_N[n] else x
        difference = nchw(got)[n].float() - 255 * x
        assert difference.abs().max() < 0.51 + 0.05, "the nearest whole value"


def draw_factors(config: AugmentConfig, rows: int, seed: int) -> NDArray[np.float64]:
    """Factors of brightness, contrast and saturation, shape (3, rows), as ``draw_params`` draws them."""
    generator = rng(seed)
    generator.integers(0, 8, rows)
    generator.uniform(size=(rows, 2))
    generator.uniform(-1, 1, rows)
    strength = np.array([config.brightness, config.contrast, config.saturation])
    return 1 + strength[:, None] * generator.uniform(-1, 1, (4, rows))[:3]


def test_blur_against_torchvision() -> None:
    x_NCHW = nchw(chips(4)).float()
    sigma_N = np.array([0, 0.1, 0.8, 2.0], np.float32)
    got = gaussian_blur(x_NCHW, sigma_N)
    assert torch.equal(got[0], x_NCHW[0])
    for n in range(1, 4):
        expected = tv.gaussian_blur(x_NCHW[n], [3, 3], [float(sigma_N[n])])
        torch.testing.assert_close(got[n], expected, atol=1e-3, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_images() -> None:
    images = chips(32)
    for config in (AugmentConfig(crop_padding=4), ALL):
        params = draw_params(config, 32, rng())
        here, there = apply_augmentation(images, params), apply_augmentation(images.cuda(), params).cpu()
        # computed values may round to a neighbor, moved pixels are equal
        assert (here.int() - there.int()).abs().max() <= (config is ALL)


def test_rgb_is_drawn_as_before_and_bands_after_it() -> None:
    config = AugmentConfig(brightness=0.3, contrast=0.2, rotate_degrees=20, crop_padding=3, blur=0.4)
    plain, banded = (draw_params(config, 9, np.random.default_rng(3), bands) for bands in (None, 5))
    np.testing.assert_array_equal(plain.symmetry_N, banded.symmetry_N)
    np.testing.assert_array_equal(plain.blur_N, banded.blur_N)
    assert plain.band_factor_NC is None
    assert banded.color_N33 is None
    assert banded.mean_luma_N is None
    assert banded.band_factor_NC is not None
    assert banded.band_factor_NC.shape == (9, 5)
    assert len(np.unique(banded.band_factor_NC)) == 45


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_steps_per_band(dtype: type) -> None:
    highest = int(np.iinfo(dtype).max)
    chips: NDArray[Any] = np.random.default_rng(0).integers(0, highest // 2, (6, 16, 16, 5)).astype(dtype)
    config = AugmentConfig(flips=False, brightness=0.4, contrast=0.4, band_dropout=0.3)
    params = draw_params(config, 6, np.random.default_rng(1), 5)
    got = apply_augmentation(torch.from_numpy(chips), params).numpy()
    assert got.dtype == dtype
    assert params.band_factor_NC is not None
    assert params.band_mean_NC is not None
    wide = chips.astype(np.float64)
    factor, share = (v[:, None, None, :] for v in (params.band_factor_NC, params.band_mean_NC))
    expected = np.floor(np.clip(factor * wide + share * wide.mean((1, 2), keepdims=True) + 0.5, 0, highest))
    assert np.abs(got - expected).max() <= 1
    dropped_NC = (params.band_factor_NC == 0) & (params.band_mean_NC == 1)
    assert 3 <= dropped_NC.sum() <= 16
    spread_NC = got.astype(np.float64).std((1, 2))
    np.testing.assert_array_equal(spread_NC == 0, dropped_NC)


COLORED = AugmentConfig(**{**ALL.model_dump(), "noise": 0.2, "band_dropout": 0.2})


def five_bands(count: int, dtype: type = np.uint16, seed: int = 0) -> Tensor:
    """Images of five bands; 3, 0 and 2 are red, green and blue."""
    scale = 1 if dtype is np.uint8 else 157
    wide = np.concatenate([chips(count).numpy(), chips(count).numpy()[:, ::-1, :, :2]], 3)
    return torch.from_numpy(np.ascontiguousarray(wide.astype(dtype) * scale))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_declared_colors_change_as_those_of_an_rgb_image(dtype: type) -> None:
    """Saturation, hue and grayscale give the bands red, green and blue what they give an RGB image."""
    config = AugmentConfig(flips=True, saturation=0.4, hue=0.2, grayscale=0.3, rotate_degrees=30, blur=0.5)
    images, colors = five_bands(12, dtype), (3, 0, 2)
    banded = apply_augmentation(images, draw_params(config, 12, rng(5), 5, colors))
    rgb = apply_augmentation(images[..., list(colors)].contiguous(), draw_params(config, 12, rng(5)))
    assert (banded[..., list(colors)].int() - rgb.int()).abs().max() <= 1
    plain = AugmentConfig(rotate_degrees=30, blur=0.5)
    others = apply_augmentation(images, draw_params(plain, 12, rng(5), 5, colors))
    assert torch.equal(banded[..., [1, 4]].int(), others[..., [1, 4]].int())
    assert not torch.equal(banded[..., 0].int(), others[..., 0].int())


def test_a_dropped_band_stays_constant_beside_colors_and_noise() -> None:
    params = draw_params(COLORED, 40, rng(), 5, (3, 0, 2))
    assert params.band_factor_NC is not None
    assert params.band_mean_NC is not None
    got = apply_augmentation(five_bands(8).repeat(5, 1, 1, 1), params).numpy()
    dropped_NC = (params.band_factor_NC == 0) & (params.band_mean_NC == 1)
    assert 20 < dropped_NC.sum() < 60
    np.testing.assert_array_equal(np.ptp(got, axis=(1, 2)) == 0, dropped_NC)


@pytest.mark.parametrize("bands", [None, 5])
def test_noise_follows_each_bands_deviation(bands: int | None) -> None:
    images = chips(6, 64) if bands is None else five_bands(6)
    config = AugmentConfig(flips=False, noise=0.3)
    params = draw_params(config, 6, rng(), bands)
    got = apply_augmentation(images, params)
    assert params.noise_NC is not None
    added = got.numpy().astype(np.float64) - images.numpy()
    expected_NC = params.noise_NC * images.numpy().astype(np.float64).std((1, 2))
    np.testing.assert_allclose(added.std((1, 2)), expected_NC, rtol=0.15, atol=0.5)
    correlation = np.corrcoef(added[0].reshape(-1, added.shape[3]).T)
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.15


def test_noise_leaves_the_other_draws_alone() -> None:
    with_noise, without = (draw_params(AugmentConfig(noise=n, hue=0.1), 8, rng(3)) for n in (0.1, 0.0))
    np.testing.assert_array_equal(with_noise.hue_N, without.hue_N)
    assert without.noise_NC is None


@pytest.mark.parametrize("bands", [None, 5])
def test_every_step_of_a_rank_is_that_of_the_global_batch(bands: int | None) -> None:
    config = COLORED if bands else derive(COLORED, band_dropout=0)
    images = five_bands(16) if bands else chips(16)
    params = draw_params(config, 16, rng(), bands, (3, 0, 2) if bands else None)
    whole = apply_augmentation(images, params)
    assert len(np.unique(whole.numpy())) > 200
    parts = [apply_augmentation(images[i : i + 1], params[i : i + 1]) for i in range(16)]
    np.testing.assert_array_equal(torch.cat(parts).numpy(), whole.numpy())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_bands() -> None:
    images, params = five_bands(32), draw_params(COLORED, 32, rng(), 5, (3, 0, 2))
    here, there = apply_augmentation(images, params), apply_augmentation(images.cuda(), params).cpu()
    difference = np.abs(here.numpy().astype(int) - there.numpy().astype(int))
    assert difference.max() <= 2, "rounding in float32 at 40,000 levels"
