"""Noise of images, the same numbers on a CPU and on a GPU.

torch's generators give other numbers on a GPU. Here each number is a hash of the image's seed and the pixel's
position, in integers, which both compute alike, whatever images a batch holds.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GAMMA, MIX_1, MIX_2 = (
    value - 2**64 for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
"""Constants of splitmix64 as signed numbers (Steele et al., OOPSLA 2014)."""
PARTS = (0, 16, 32, 48)
LOW_16 = 0xFFFF
DEVIATION = 65_536 / 3**0.5
"""Standard deviation of the sum of four numbers of 16 bits."""


def add_noise(x_NCHW: Tensor, scale_NC: NDArray[np.float32], seed_N: NDArray[np.int64]) -> Tensor:
    """Add noise to each band of each image.

    Args:
        x_NCHW: images, float32.
        scale_NC: standard deviation of the noise, in those of the band over the image.
        seed_N: seed of each image.
    """
    deviation_NC11 = x_NCHW.std(dim=(2, 3), keepdim=True, correction=0)
    scale_NC11 = torch.from_numpy(scale_NC).to(x_NCHW.device, non_blocking=True)[:, :, None, None]
    return torch.addcmul(x_NCHW, deviation_NC11 * scale_NC11, noise(seed_N, x_NCHW.shape, x_NCHW.device))


def noise(seed_N: NDArray[np.int64], shape: torch.Size, device: torch.device) -> Tensor:
    """Numbers of mean 0 and deviation 1, float32, of ``shape`` (N, C, H, W).

    Each is the sum of four uniform numbers, which is normal but for its tails (at most 3.5 deviations).

    Args:
        seed_N: seed of each image.
        shape: shape of the result.
        device: where to compute it.
    """
    seed_N1 = torch.from_numpy(seed_N).to(device, non_blocking=True)[:, None]
    state = torch.arange(1, shape[1:].numel() + 1, device=device) * GAMMA + seed_N1
    state = (state ^ _shifted(state, 30)) * MIX_1
    state = (state ^ _shifted(state, 27)) * MIX_2
    state = state ^ _shifted(state, 31)
    total = sum((state >> part) & LOW_16 for part in PARTS)
    assert isinstance(total, Tensor)
    return ((total - len(PARTS) * LOW_16 / 2) / DEVIATION).to(torch.float32).reshape(shape)


def _shifted(state: Tensor, bits: int) -> Tensor:
    """The unsigned shift to the right."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)
