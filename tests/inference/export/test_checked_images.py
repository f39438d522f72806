"""The images that an exported graph is compared on: chips of the run, noise, flat colors; one alone first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from canopy.bands import BandStatistics
from canopy.inference.export.checked_images import CHECKED_IMAGES, batches, check_images
from canopy.inference.export.quantize import StoredChips

SIZE = 16


def val_chips(count: int) -> StoredChips:
    chips_NHWC = np.random.default_rng(3).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return StoredChips(chips_NHWC[:0], chips_NHWC, np.zeros((count, 2), np.uint8))


def has_black_and_white(images_NHWC: NDArray[np.uint8]) -> bool:
    means = images_NHWC.mean((1, 2, 3))
    return bool((means == 0).any() and (means == 255).any())


def test_a_run_without_chips_gives_random_images_the_same_each_time() -> None:
    images_NHWC = check_images(None, SIZE)
    assert images_NHWC.shape == (CHECKED_IMAGES, SIZE, SIZE, 3)
    assert images_NHWC.dtype == np.uint8
    assert has_black_and_white(images_NHWC)
    assert len(np.unique(images_NHWC.reshape(CHECKED_IMAGES, -1), axis=0)) == CHECKED_IMAGES
    np.testing.assert_array_equal(images_NHWC, check_images(None, SIZE))


def test_val_chips_take_the_places_of_random_images() -> None:
    for count in (5, 200):
        stored = val_chips(count)
        images_NHWC = check_images(stored, SIZE)
        assert len(images_NHWC) == CHECKED_IMAGES
        assert has_black_and_white(images_NHWC)
        taken = min(count, CHECKED_IMAGES - 8)
        np.testing.assert_array_equal(images_NHWC[8 : 8 + taken], stored.measured_NHWC[:taken])


def test_the_batches_hold_every_image_once_and_the_first_holds_one() -> None:
    for count in (1, 2, 17, CHECKED_IMAGES):
        parts = list(batches(count))
        assert (parts[0].start, parts[0].stop) == (0, 1)
        assert [n for part in parts for n in range(count)[part]] == list(range(count))


def test_images_of_bands_lie_between_their_percentiles() -> None:
    bands = BandStatistics(
        names=("red", "nir"),
        dtype="uint16",
        ranges=((0, 65_535), (0, 65_535)),
        mean=(500, 3000),
        std=(100, 400),
        low=(300, 2200),
        median=(500, 3000),
        high=(700, 3800),
        display=(0, 0, 0),
    )
    images = check_images(None, 16, bands)
    assert images.dtype == np.uint16
    assert images.shape == (CHECKED_IMAGES, 16, 16, 2)
    assert not images[7].any(), "one is empty, as a chip without any value"
    others = np.delete(images, 7, axis=0)
    assert (others >= [300, 2200]).all()
    assert (others <= [700, 3800]).all()
    assert len(np.unique(others[..., 0])) > 300
