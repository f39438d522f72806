"""Pairs of labels: two spellings of one, and those that exclude each other."""

from __future__ import annotations

import numpy as np

from canopy.data.label_checks import exclusive_pairs, likely_misspellings


def test_labels_that_may_be_one() -> None:
    counts = {"water": 500, "Water": 90, "slash_burn": 40, "slash burn": 38, "agricultur": 2}
    counts |= {"agriculture": 900, "road": 10, "roads": 12}
    assert likely_misspellings(counts) == [
        ("agricultur", "agriculture"), ("slash burn", "slash_burn"), ("Water", "water")
    ]  # fmt: skip
    planet = "agriculture artisinal_mine bare_ground blooming blow_down clear cloudy conventional_mine"
    planet += " cultivation habitation haze partly_cloudy primary road selective_logging slash_burn water"
    assert likely_misspellings({name: 10 + 200 * n for n, name in enumerate(planet.split())}) == []


def test_labels_that_exclude_each_other_and_the_image_that_says_otherwise() -> None:
    rng = np.random.default_rng(0)
    clear_N = rng.random(4000) < 0.5
    road_N = rng.random(4000) < 0.3
    targets_NK = np.stack([clear_N, ~clear_N, road_N], axis=1).astype(np.uint8)
    ids = [str(n) for n in range(4000)]
    names = ("clear", "cloudy", "road")
    assert exclusive_pairs(names, targets_NK, ids) == ([("clear", "cloudy")], [])
    targets_NK[77, :2] = 1
    assert exclusive_pairs(names, targets_NK, ids) == ([], [("clear", "cloudy", ["77"])])
