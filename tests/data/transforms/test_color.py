"""Color transforms against torchvision, image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor

from canopy.data.transforms.color import adjust_hue, apply_color_matrix, color_matrix, to_grayscale


def chips(count: int = 8, size: int = 24) -> Tensor:
    """Smooth coloured images with some noise, uint8 (N, H, W, 3)."""
    generator = torch.Generator().manual_seed(0)
    coarse = 255 * torch.rand(count, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)
    noisy = smooth + 6 * torch.randn(smooth.shape, generator=generator)
    return noisy.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def nchw(images_NHWC: Tensor) -> Tensor:
    return images_NHWC.permute(0, 3, 1, 2)


FACTORS = np.array([0.7, 0.9, 1.0, 1.1, 1.3])
ONES = np.ones(5)


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
def test_color_against_torchvision(kind: str) -> None:
    x_NCHW = 60 + nchw(chips(5)).float() / 4  # away from 0 and 255, where torchvision clips
    factors = dict.fromkeys(("brightness", "contrast", "saturation"), ONES) | {kind: FACTORS}
    got = apply_color_matrix(x_NCHW, *color_matrix(*factors.values()))
    theirs = {
        "brightness": tv.adjust_brightness,
        "contrast": tv.adjust_contrast,
        "saturation": tv.adjust_saturation,
    }[kind]
    for n, factor in enumerate(FACTORS.tolist()):
        torch.testing.assert_close(got[n], 255 * theirs(x_NCHW[n] / 255, factor), atol=0.05, rtol=0)


def test_hue_against_torchvision() -> None:
    x_NCHW = nchw(chips(5)).float().contiguous()
    x_NCHW[:, :, 0] = x_NCHW[:, :1, 0]  # gray images
    x_NCHW[:, :2, 1] = 90  # two equal channels
    x_NCHW[0, :, 2] = 0
    turns = np.array([-0.5, -0.15, 0.0, 0.07, 0.5], np.float32)
    got = adjust_hue(x_NCHW, turns)
    for n, turn in enumerate(turns.tolist()):
        torch.testing.assert_close(got[n], 255 * tv.adjust_hue(x_NCHW[n] / 255, turn), atol=0.01, rtol=0)
    torch.testing.assert_close(adjust_hue(got, -turns), x_NCHW, atol=0.01, rtol=0)


def test_grayscale_against_torchvision() -> None:
    x_NCHW = nchw(chips(4)).float()
    got = to_grayscale(x_NCHW.clone(), np.array([True, False, False, True]))
    for n in (0, 3):
        torch.testing.assert_close(got[n], tv.rgb_to_grayscale(x_NCHW[n], 3), atol=0.05, rtol=0)
    assert torch.equal(got[1:3], x_NCHW[1:3])


def test_one_matrix_equals_three_steps() -> None:
    x_NCHW = nchw(chips(5)).float()
    b, c, s = np.random.default_rng(0).uniform(0.7, 1.3, (3, 5))
    at_once = apply_color_matrix(x_NCHW, *color_matrix(b, c, s))
    stepwise = x_NCHW
    for step in ((b, ONES, ONES), (ONES, c, ONES), (ONES, ONES, s)):
        stepwise = apply_color_matrix(stepwise, *color_matrix(*step))
    torch.testing.assert_close(at_once, stepwise, atol=1e-2, rtol=0)
