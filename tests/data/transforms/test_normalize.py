"""Input normalization: torchvision's result for RGB, and the statistics of bands."""

from __future__ import annotations

import numpy as np
import torch
import torchvision.transforms.v2.functional as tv
from tests.data.transforms.test_augment import chips, nchw
from tests.test_bands import STATISTICS

from canopy.data.transforms.normalize import IMAGENET_MEAN, IMAGENET_STD, normalize


def test_normalize_against_torchvision() -> None:
    images = chips()
    expected = tv.normalize(nchw(images).float() / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
    got = normalize(images)
    assert got.dtype == torch.float32
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_bands_are_normalized_by_their_statistics() -> None:
    levels = np.random.default_rng(0).integers(0, 65536, (4, 8, 8, 4)).astype(np.uint16)
    got = normalize(torch.from_numpy(levels), STATISTICS)
    expected = (levels - np.array(STATISTICS.mean)) / np.array(STATISTICS.std)
    np.testing.assert_allclose(got.numpy(), np.moveaxis(expected, -1, 1), rtol=1e-5, atol=1e-2)
