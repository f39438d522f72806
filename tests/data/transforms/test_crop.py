"""Square crops: positions, the center, and the order of steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from canopy.config import AugmentConfig, DataConfig, Experiment, VariantConfig
from canopy.data.transforms.augment import apply_augmentation, draw_params
from canopy.data.transforms.crop import center_crop, crop_at


def numbered(count: int, size: int) -> Tensor:
    """Images whose pixel (y, x) holds (y, x, number)."""
    y, x, n = np.arange(size)[None, :, None], np.arange(size)[None, None, :], np.arange(count)[:, None, None]
    pixels = np.stack(np.broadcast_arrays(y, x, n), axis=3)
    return torch.from_numpy(pixels.astype(np.uint8))


def test_corners_cover_all_positions() -> None:
    rng = np.random.default_rng(0)
    images = numbered(400, 12)
    cut = crop_at(images, 8, rng.uniform(size=(400, 2)))
    assert cut.shape == (400, 8, 8, 3)
    corners = cut[:, 0, 0, :2].numpy()
    assert {tuple(c) for c in corners} == {(y, x) for y in range(5) for x in range(5)}
    np.testing.assert_array_equal(cut[:, 7, 7, :2].numpy(), corners + 7)
    np.testing.assert_array_equal(cut[:, 0, 0, 2].numpy(), np.arange(400) % 256)


def test_the_central_crop() -> None:
    assert center_crop(numbered(2, 12), 8)[0, 0, 0].tolist() == [2, 2, 0]
    assert center_crop(numbered(2, 12), 8).shape == (2, 8, 8, 3)
    assert center_crop(numbered(2, 12), None).shape == (2, 12, 12, 3)


def test_the_crop_is_the_first_step_and_follows_slices() -> None:
    """A rank's share has the same crops as in the global batch."""
    images = numbered(16, 24)
    for config in (AugmentConfig(crop=10), AugmentConfig(flips=False, crop=10, rotate_degrees=20, blur=0.5)):
        whole = apply_augmentation(images, draw_params(config, 16, np.random.default_rng(3)))
        assert whole.shape == (16, 10, 10, 3)
        params = draw_params(config, 16, np.random.default_rng(3))
        parts = [apply_augmentation(images[s], params[s]) for s in (slice(0, 5), slice(5, 16))]
        assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(
        apply_augmentation(
            images, draw_params(AugmentConfig(flips=False, crop=24), 16, np.random.default_rng(3))
        ),
        images,
    )


def test_impossible_crops_are_refused() -> None:
    with pytest.raises(ValueError, match=r"augment.crop_padding must be 0 when augment.crop is set"):
        AugmentConfig(crop=32, crop_padding=2)
    variant = VariantConfig(name="a", augment=AugmentConfig(crop=65))
    with pytest.raises(ValueError, match=r"variant a: augment.crop must be at most data.image_size. Got: 65"):
        Experiment(variants=(variant,), data=DataConfig(image_size=64))
