"""A data set decoded once, with its chips in the cache file, in memory, or dropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from canopy.config import DataConfig
from canopy.data.duplicates import pixel_hashes, thumbnails
from canopy.data.loading.chip_cache import ChipCache
from canopy.data.loading.decode_dataset import decode_dataset
from canopy.runtime.console import Console

SIZE, ROWS = 32, 10

pytestmark = pytest.mark.usefixtures("ray_here")


@pytest.fixture
def images(tmp_path: Path) -> tuple[list[str], np.ndarray]:
    chips_NHWC = np.random.default_rng(0).integers(0, 256, (ROWS, SIZE, SIZE, 3), np.uint8)
    uris = [str(tmp_path / f"{n}.png") for n in range(ROWS)]
    for uri, chip in zip(uris, chips_NHWC, strict=True):
        Image.fromarray(chip).save(uri)
    Path(uris[2]).write_bytes(b"no image")
    return uris, chips_NHWC


class InMemory(ChipCache):
    """A cache that other processes cannot map, as on a cluster."""

    is_mappable = False


@pytest.mark.parametrize("kind", [ChipCache, InMemory])
def test_readable_images_are_kept_and_published(
    images: tuple[list[str], np.ndarray], tmp_path: Path, kind: type[ChipCache]
) -> None:
    uris, chips_NHWC = images
    cache = kind(str(tmp_path / "run" / "chips.npy"))
    decoded = decode_dataset(uris, DataConfig(image_size=SIZE), cache, Console())
    assert decoded.in_file == (kind is ChipCache)
    assert [n for n, found in enumerate(decoded.inspections) if found.problem] == [2]
    keep = np.array([n for n in range(ROWS) if n != 2])
    kept = decoded.subset(keep)
    np.testing.assert_array_equal(kept.chips_NHWC, chips_NHWC[keep])
    assert kept.hashes == pixel_hashes(chips_NHWC[keep])
    np.testing.assert_array_equal(kept.thumbs_NSS, thumbnails(chips_NHWC[keep]))
    assert not cache.exists()
    kept.publish()
    np.testing.assert_array_equal(np.load(cache.path), chips_NHWC[keep])


def test_chips_above_the_limit_are_dropped_with_those_of_an_earlier_run(
    images: tuple[list[str], np.ndarray], tmp_path: Path
) -> None:
    uris, chips_NHWC = images
    cache = ChipCache(str(tmp_path / "run" / "chips.npy"))
    cache.publish(chips_NHWC)
    decoded = decode_dataset(uris, DataConfig(image_size=SIZE, max_cache_gb=1e-6), cache, Console())
    assert decoded.chips_NHWC is None
    assert decoded.hashes[3] == pixel_hashes(chips_NHWC[3:4])[0]
    decoded.subset(np.arange(3)).publish()
    assert not cache.exists()
