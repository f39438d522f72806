"""Class-balanced sampling: how often an epoch shows each training chip.

There are two steps, both pure functions over arrays. :func:`expected_copies` computes the mean number of
copies of each chip per epoch from the label frequencies of the training rows. :func:`round_copies` rounds
these means to integers for one epoch, at random, up or down to the next integer; epochs differ, and their
mean is exact. The catalogue lists each path once; the sampler repeats row numbers.

The *rarest* label of a chip decides (the maximum over its labels, as in LVIS), not the mean over its labels.
Nearly all of Planet's chips also have ``primary`` and ``clear``: with a mean, these two would reduce the
weight of a chip with ``blow_down``, but not the weight of a chip with clouds only. With the maximum and
power 1, the chips for which a label is the rarest get draws in proportion to m / n, where n chips have the
label and m of them have no rarer one; if m = n for all labels, each label gets the same number.
"""

from __future__ import annotations

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from canopy.config import SamplingConfig

Floats = NDArray[np.float64]


def expected_copies(config: SamplingConfig, targets_NK: NDArray[np.uint8]) -> Floats | None:
    """The mean number of times that an epoch shows each training chip, shape (N,); None for once each.

    Args:
        config: sampling method and its strength.
        targets_NK: multi-hot labels of the training rows only.
    """
    match config.name:
        case "uniform":
            return None
        case "repeat_factor":
            return repeat_factors(targets_NK, config.threshold)
        case "weighted":
            weights_N = rarity_weights(targets_NK, config.power)
            copies_N: Floats = weights_N * (len(weights_N) / weights_N.sum())
            return copies_N
        case _:
            assert_never(config.name)


def repeat_factors(targets_NK: NDArray[np.uint8], threshold: float) -> Floats:
    """max(1, sqrt(threshold / f)) of each chip, shape (N,); f is the share of its rarest label.

    The repeat factor of an image is the maximum over its labels. Every chip is shown at least once, so the
    epoch grows. A chip without labels is shown once.

    Source: Gupta, Dollár and Girshick, "LVIS: A Dataset for Large Vocabulary Instance Segmentation", CVPR
        2019.

    Args:
        targets_NK: multi-hot labels.
        threshold: share of chips below which a label is repeated, in (0, 1].
    """
    return np.sqrt(np.maximum(1.0, threshold / rarest_label_share(targets_NK)))


def rarity_weights(targets_NK: NDArray[np.uint8], power: float) -> Floats:
    """f^-power of each chip, shape (N,), at least 1; f is the share of its rarest label.

    Power 0 is uniform sampling, 1 is class-balanced sampling, 1/2 is square-root sampling (q = 1 - power in
    the source). The weight of a chip without labels is 1, as for a label that all chips have.

    Source: Kang et al., "Decoupling Representation and Classifier", ICLR 2020, equation 1.
    """
    weights_N: Floats = rarest_label_share(targets_NK) ** -power
    return weights_N


def rarest_label_share(targets_NK: NDArray[np.uint8]) -> Floats:
    """The share of chips with each chip's rarest label, shape (N,), in (0, 1]; 1 without labels."""
    share_K = targets_NK.mean(axis=0, dtype=np.float64)
    share_N: Floats = np.where(targets_NK > 0, share_K, 1.0).min(axis=1, initial=1.0)
    return share_N


def epoch_length(expected_copies_N: Floats) -> int:
    """The minimum number of chips in every epoch: the integer part of the expected number."""
    return int(np.floor(expected_copies_N.sum() + 1e-6))


def round_copies(expected_copies_N: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """The number of copies of each chip in one epoch, int64 of shape (N,), with mean ``expected_copies_N``.

    Method: systematic sampling (Madow, 1949), with one random offset for all cumulative sums. Each count is
        the
    integer below or above its expectation, as with stochastic rounding of each count; in addition, the sum
    of all counts is within one of its expectation, so the number of steps of an epoch is known in advance.
    The cumulative sums run over a random order, so that the counts of neighbors in the catalogue do not
    depend on each other.
    """
    order_N = rng.permutation(len(expected_copies_N))
    cumulative_N = np.cumsum(expected_copies_N[order_N])
    nearest = np.rint(cumulative_N[-1])
    if abs(cumulative_N[-1] - nearest) < 1e-6:  # rounding errors must not change an integer sum
        cumulative_N[-1] = nearest
    floors_N = np.floor(cumulative_N + rng.uniform()).astype(np.int64)
    copies_N = np.empty(len(expected_copies_N), np.int64)
    copies_N[order_N] = np.diff(floors_N, prepend=0)
    return copies_N


def epoch_label_counts(
    targets_NK: NDArray[np.uint8], expected_copies_N: Floats | None
) -> tuple[NDArray[np.int64], int]:
    """Each label's positives, int64 of shape (K,), and the number of chips that an epoch shows.

    Initial biases and loss weights that depend on label frequencies must use the chips that an epoch shows.
    Rounding keeps a label present that occurs, and absent somewhere if a chip lacks it.
    """
    counts_K = targets_NK.sum(axis=0, dtype=np.int64)
    if expected_copies_N is None:
        return counts_K, len(targets_NK)
    rows = epoch_length(expected_copies_N)
    seen_K = np.rint(expected_copies_N @ targets_NK.astype(np.float64)).astype(np.int64)
    least_K = (counts_K > 0).astype(np.int64)
    most_K = rows - (counts_K < len(targets_NK)).astype(np.int64)
    return np.clip(seen_K, least_K, most_K), rows
