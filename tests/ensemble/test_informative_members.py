"""Members that carry no information are found, and all are kept where none does."""

from __future__ import annotations

import numpy as np

from canopy.ensemble.calibrate import bin_codes, bin_counts
from canopy.ensemble.informative_members import informative_members
from canopy.metrics import Floats


def counts(*members: np.ndarray, targets: np.ndarray) -> Floats:
    return np.stack([bin_counts(bin_codes(member), targets) for member in members])


def test_noise_constants_and_reversed_members_are_not_informative() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((400, 3)) < 0.3).astype(np.uint8)
    good = np.clip(0.3 * targets + 0.5 * rng.random((400, 3)), 0, 1)
    noise, constant = rng.random((400, 3)), np.full((400, 3), 0.3)
    found = informative_members(counts(good, noise, constant, 1 - good, targets=targets))
    assert found.tolist() == [True, False, False, False]
    assert informative_members(counts(noise, constant, targets=targets)).tolist() == [True, True]
