"""How often each training chip is shown in an epoch, and which epoch shows which chip how often.

Two steps, both pure functions over arrays. :func:`expected_copies` says how often a chip should be shown on
average, from the frequencies of its labels among the training rows; :func:`whole_copies` rounds that to whole
copies for one epoch, at random but never further than to the next whole number, so that the epochs differ and
their mean is exact. A path is never repeated in a catalogue: what is repeated is an index.

A chip counts for its *rarest* label (the maximum over its labels, as in LVIS), not for their mean: nearly
all of Planet's chips also show ``primary`` and ``clear``, and a mean would let these two water down a blow
down while a chip that shows nothing but clouds keeps all of its weight. With the maximum and power 1, a label
of n chips, of which m have no rarer one, gets draws in proportion to m / n through these: as many for each
label where m = n.
"""

from __future__ import annotations

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from canopy.config import SamplingConfig

Floats = NDArray[np.float64]


def expected_copies(config: SamplingConfig, targets_NK: NDArray[np.uint8]) -> Floats | None:
    """How often each of the N training chips is shown per epoch on average, shape (N,); None: each once.

    Args:
        config: the method and its strength.
        targets_NK: multi-hot labels of the training rows and of no others.
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
    """Each chip's max(1, sqrt(threshold / f)), f the share of chips with its rarest label, shape (N,).

    Gupta, Dollár and Girshick, "LVIS: A Dataset for Large Vocabulary Instance Segmentation", CVPR 2019: the
    repeat factor of an image is the maximum over its labels. No chip is shown less than once, so the epoch
    grows by the sum of what is added. A chip without labels is shown once.
    """
    return np.sqrt(np.maximum(1.0, threshold / rarest_share(targets_NK)))


def rarity_weights(targets_NK: NDArray[np.uint8], power: float) -> Floats:
    """Each chip's f^-power, f the share of chips with its rarest label, shape (N,), at least 1.

    Power 0 is uniform; 1 is class-balanced sampling (Kang et al., "Decoupling Representation and Classifier",
    ICLR 2020, equation 1 with q = 0); between them q = 1 - power, of which 1/2 is their square-root sampling.
    A chip without labels weighs 1, as one of which all labels are everywhere.
    """
    weights_N: Floats = rarest_share(targets_NK) ** -power
    return weights_N


def rarest_share(targets_NK: NDArray[np.uint8]) -> Floats:
    """The share of chips that have each chip's rarest label, shape (N,), in (0, 1]; 1 without labels."""
    share_K = targets_NK.mean(axis=0, dtype=np.float64)
    share_N: Floats = np.where(targets_NK > 0, share_K, 1.0).min(axis=1, initial=1.0)
    return share_N


def total_copies(expected_N: Floats) -> int:
    """The number of chips that every epoch shows at least: the whole part of the expected number."""
    return int(np.floor(expected_N.sum() + 1e-6))


def whole_copies(expected_N: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """Copies of each chip in one epoch: expected ones rounded up or down, with the right mean, shape (N,).

    Systematic sampling (Madow 1949): one random offset for the whole ladder of cumulated expectations. Each
    count is the whole number below or above its expectation, up by chance in proportion to the fraction,
    as in stochastic rounding one by one; but the sum, too, is within one of its expectation. So the number
    of steps of an epoch is known before it is drawn. The ladder is shuffled, so that neighbours in the
    catalogue are not tied to each other.
    """
    order_N = rng.permutation(len(expected_N))
    ladder_N = np.cumsum(expected_N[order_N])
    nearest = np.rint(ladder_N[-1])
    if abs(ladder_N[-1] - nearest) < 1e-6:  # a whole number of draws stays one, whatever the rounding errors
        ladder_N[-1] = nearest
    rungs_N = np.floor(ladder_N + rng.uniform()).astype(np.int64)
    copies_N = np.empty(len(expected_N), np.int64)
    copies_N[order_N] = np.diff(rungs_N, prepend=0)
    return copies_N


def seen_counts(targets_NK: NDArray[np.uint8], expected_N: Floats | None) -> tuple[NDArray[np.int64], int]:
    """Positives of each label, shape (K,), and chips in all, as an epoch shows them.

    What a network starts from and what a loss takes from label frequencies must follow the chips that are
    shown, not those that there are. A label that occurs, or is absent somewhere, stays so after rounding.
    """
    counts_K = targets_NK.sum(axis=0, dtype=np.int64)
    if expected_N is None:
        return counts_K, len(targets_NK)
    rows = total_copies(expected_N)
    seen_K = np.rint(expected_N @ targets_NK.astype(np.float64)).astype(np.int64)
    least_K = (counts_K > 0).astype(np.int64)
    most_K = rows - (counts_K < len(targets_NK)).astype(np.int64)
    return np.clip(seen_K, least_K, most_K), rows
