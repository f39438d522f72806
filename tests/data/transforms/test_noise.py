"""Noise by a hash: splitmix64's numbers, of mean 0 and deviation 1, independent of the batch."""

from __future__ import annotations

import numpy as np
import torch

from canopy.data.transforms.noise import DEVIATION, LOW_16, PARTS, add_noise, noise

CPU = torch.device("cpu")


def splitmix64(seed: int, count: int) -> list[int]:
    """The reference implementation, in Python's integers."""
    state, found = seed % 2**64, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        found.append(z ^ (z >> 31))
    return found


def test_numbers_are_those_of_splitmix64() -> None:
    assert splitmix64(1234567, 1) == [6457827717110365317], "the published first number of this seed"
    seeds = np.array([1234567, -5, 2**63 - 1], np.int64)
    got = noise(seeds, torch.Size((3, 2, 3, 4)), CPU).reshape(3, -1).numpy()
    for row, seed in zip(got, seeds.tolist(), strict=True):
        sums = [sum((z >> part) & LOW_16 for part in PARTS) for z in splitmix64(seed, 24)]
        np.testing.assert_allclose(row, (np.array(sums) - 2 * LOW_16) / DEVIATION, atol=1e-6)


def test_they_are_nearly_normal_and_independent() -> None:
    got = noise(np.arange(4), torch.Size((4, 3, 100, 100)), CPU).numpy()
    flat = got.reshape(-1)
    assert abs(flat.mean()) < 0.01
    assert abs(flat.std() - 1) < 0.01
    assert abs((flat > 1.96).mean() - 0.025) < 0.004
    assert np.abs(np.corrcoef(got.reshape(12, -1)) - np.eye(12)).max() < 0.05
    assert abs(np.corrcoef(flat[:-1], flat[1:])[0, 1]) < 0.01
    assert np.abs(flat).max() < 3.5


def test_a_flat_band_stays_flat() -> None:
    x_NCHW = torch.full((1, 2, 8, 8), 7.0)
    x_NCHW[0, 1] = torch.arange(64).reshape(8, 8)
    got = add_noise(x_NCHW, np.full((1, 2), 0.5, np.float32), np.array([3]))
    assert torch.equal(got[0, 0], x_NCHW[0, 0])
    assert (got[0, 1] != x_NCHW[0, 1]).all()
