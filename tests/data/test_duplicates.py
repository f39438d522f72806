"""Duplicates: copies are found, images that only look alike are not."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from canopy.data.duplicates import area_weights, find_duplicates, perceptual_hashes, thumbnails

Chips = NDArray[np.uint8]
SIZE = 64


def textures(count: int, seed: int = 0, size: int = SIZE) -> Chips:
    """Different pictures with coarse and fine structure, as ground has; shape (count, size, size, 3)."""
    rng = np.random.default_rng(seed)
    out = np.zeros((count, size, size, 3), np.float32)
    for cells, strength in ((3, 30), (9, 14), (size // 2, 8)):
        for n in range(count):
            noise = rng.normal(0, strength, (cells, cells)).astype(np.float32)
            layer = Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)
            out[n] += np.asarray(layer)[..., None]
    tint = rng.uniform(70, 150, (count, 1, 1, 3))
    return np.clip(out + tint, 0, 255).astype(np.uint8)


def through_jpeg(chip: Chips, quality: int) -> Chips:
    stream = io.BytesIO()
    Image.fromarray(chip).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def resized(chip: Chips, size: int) -> Chips:
    small = Image.fromarray(chip).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(small.resize(chip.shape[:2], Image.Resampling.BILINEAR))


CHANGES: dict[str, Callable[[Chips], Chips]] = {
    "compressed": lambda chip: through_jpeg(chip, 60),
    "brighter": lambda chip: np.minimum(chip * 1.2, 255).astype(np.uint8),
    "contrast": lambda chip: (chip * 0.7 + 30).astype(np.uint8),
    "grey": lambda chip: np.asarray(Image.fromarray(chip).convert("L").convert("RGB")),
    "smaller": lambda chip: resized(chip, 40),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_nothing_else(change: str) -> None:
    chips = textures(120)
    copies = np.stack([CHANGES[change](chip) for chip in chips[:40]])
    ids = [f"n{n}" for n in range(120)] + [f"copy{n}" for n in range(40)]
    found = find_duplicates(ids, np.concatenate([chips, copies]), [("x",)] * 160)
    right = {(f"n{n}", f"copy{n}") for n in range(40)}
    pairs = {(a, b) for a, b, _ in found.near}
    assert pairs <= right
    assert len(pairs) >= 38
    assert found.equal == []
    assert all(0.92 <= r <= 1 for _, _, r in found.near)


def test_equal_pixels_blank_chips_and_labels_that_disagree() -> None:
    chips = textures(6)
    chips[3] = chips[5] = chips[1]
    chips[0] = 255
    chips[4] = 255  # two blank chips are no duplicates: they show nothing
    ids = list("abcdef")
    tags = [("x",), ("x", "y"), ("x",), ("y", "x"), ("x",), ("x",)]
    found = find_duplicates(ids, chips, tags)
    assert found.equal == [["b", "d", "f"]]
    assert found.near == []
    assert found.blank == ["a", "e"]
    assert found.disagreeing == [("b", "f")]
    assert found.pairs() == [("b", "d"), ("b", "f")]


def test_two_scenes_with_one_common_edge_are_no_duplicates() -> None:
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    lake_HW = np.where((x - 0.2) ** 2 + (y - 0.3) ** 2 < 0.3, 60, 160)
    grain = np.random.default_rng(0).normal(0, 11, (30, 16, 16)).repeat(4, 1).repeat(4, 2)
    chips = np.clip(lake_HW + grain, 0, 255).astype(np.uint8)[..., None].repeat(3, 3)
    thumbs = thumbnails(chips)
    hashes = perceptual_hashes(thumbs)
    close = np.bitwise_count(hashes[:, None] ^ hashes) <= 10
    alike = close & (np.corrcoef(thumbs.reshape(30, -1)) > 0.92)
    assert alike[np.triu_indices(30, 1)].sum() > 20  # hash and grey values alone would call them the same
    assert find_duplicates([str(n) for n in range(30)], chips, [("x",)] * 30).near == []


def test_groups_join_confirmed_pairs_and_known_scenes() -> None:
    chips = textures(6)
    chips[2] = chips[0]
    found = find_duplicates(list("abcdef"), chips, [("x",)] * 6)
    assert found.groups(list("abcdef")).tolist() == ["a", "b", "a", "d", "e", "f"]
    scenes = ["s", "t", "u", "t", "", ""]
    assert found.groups(list("abcdef"), scenes).tolist() == ["a", "b", "a", "b", "e", "f"]
    assert found.groups(list("bcd")).tolist() == ["b", "c", "d"]


def test_an_empty_set_has_no_duplicates() -> None:
    found = find_duplicates([], np.zeros((0, SIZE, SIZE, 3), np.uint8), [])
    assert found.pairs() == []
    assert len(found.groups([])) == 0


@pytest.mark.parametrize("size", [20, 32, 50, 64, 256])
def test_thumbnails_are_area_means(size: int) -> None:
    weights_TS = area_weights(32, size)
    assert np.allclose(weights_TS.sum(1), 1)
    chips = np.full((2, size, size, 3), (10, 20, 30), np.uint8)
    assert np.allclose(thumbnails(chips), 0.299 * 10 + 0.587 * 20 + 0.114 * 30, atol=1e-3)
    if size % 32 == 0:
        chip = textures(1, size=size)
        gray = chip[0] @ np.array([0.299, 0.587, 0.114])
        blocks = gray.reshape(32, size // 32, 32, size // 32).mean((1, 3))
        assert np.allclose(thumbnails(chip)[0], blocks, atol=1e-2)
