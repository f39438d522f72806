"""What the losses take from the label frequencies: weights, alphas, priors, and the checks on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from canopy.config import LossConfig
from canopy.errors import ConfigError, DataError

Floats = NDArray[np.float64]
EFFECTIVE_BETA = 0.999
"""Beyond about 1 / (1 - beta) = 1,000 examples, more of them say nothing new."""


def check_counts(
    config: LossConfig, label_counts_K: NDArray[np.integer], rows: int, names: Sequence[str] | None = None
) -> None:
    """Refuse label counts that the loss cannot be built on.

    Raises:
        DataError: when the loss divides by a frequency and a label has no positives (or no negatives).
    """
    assert label_counts_K.ndim == 1
    assert ((label_counts_K >= 0) & (label_counts_K <= rows)).all()
    from_frequencies = (
        config.name in {"distribution_balanced", "logit_adjusted"}
        or (config.name == "weighted_bce" and config.class_weights is None)
        or (config.name == "focal" and config.alpha == "frequency")
    )
    if not from_frequencies:
        return
    for count, kind in ((0, "positive"), (rows, "negative")):
        bare = [_name(int(k), names) for k in np.flatnonzero(label_counts_K == count)]
        if bare:
            raise DataError(
                f"loss.name={config.name}",
                f"needs at least one {kind} of every label among the {rows} training rows",
                f"none of {', '.join(bare)}",
                "Drop that label, split again so that it has some, or use bce, focal or asymmetric.",
            )


def positive_weights(
    config: LossConfig, label_counts_K: NDArray[np.integer], rows: int, names: Sequence[str] | None = None
) -> Floats:
    """Weights of the positives of each label for weighted BCE, at most ``weight_cap``, shape (K,).

    ``ratio`` is negatives / positives, which balances the two exactly; ``sqrt`` its square root;
    ``effective`` the ratio of effective numbers, E(n) = (1 - beta^n) / (1 - beta), Cui et al.,
    "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019. Ones where another loss is
    meant.

    Raises:
        ConfigError: when ``class_weights`` are not one per label.
    """
    if config.name != "weighted_bce":
        return np.ones(len(label_counts_K))
    if config.class_weights is not None:
        return _one_per_label("loss.class_weights", config.class_weights, len(label_counts_K), names)
    positives_K = label_counts_K.astype(np.float64)
    negatives_K = rows - positives_K
    match config.weighting:
        case "ratio":
            weights_K = negatives_K / positives_K
        case "sqrt":
            weights_K = np.sqrt(negatives_K / positives_K)
        case "effective":
            weights_K = (1 - EFFECTIVE_BETA**negatives_K) / (1 - EFFECTIVE_BETA**positives_K)
        case _:
            assert_never(config.weighting)
    return np.minimum(weights_K, config.weight_cap)


def alpha_by_label(config: LossConfig, label_counts_K: NDArray[np.integer], rows: int) -> Floats:
    """Focal alpha of each label, in [0, 1], shape (K,); 0.5 everywhere when there is none.

    ``frequency`` lets positives weigh sqrt(negatives / positives) times the negatives:
    alpha = sqrt(neg) / (sqrt(neg) + sqrt(pos)).

    Raises:
        ConfigError: when a tuple of alphas is not one per label.
    """
    labels = len(label_counts_K)
    if config.name != "focal" or config.alpha is None:
        return np.full(labels, 0.5)
    if isinstance(config.alpha, tuple):
        return _one_per_label("loss.alpha", config.alpha, labels)
    if config.alpha == "frequency":
        positives_K = np.sqrt(label_counts_K.astype(np.float64))
        negatives_K = np.sqrt(rows - label_counts_K.astype(np.float64))
        alpha_K: Floats = negatives_K / (negatives_K + positives_K)
        return alpha_K
    return np.full(labels, config.alpha)


def log_odds(label_counts_K: NDArray[np.integer], rows: int) -> Floats:
    """log(n / (rows - n)) of each label, shape (K,), with n kept half an example away from 0 and rows."""
    positives_K = np.clip(label_counts_K.astype(np.float64), 0.5, rows - 0.5)
    odds_K: Floats = np.log(positives_K) - np.log(rows - positives_K)
    return odds_K


def initial_rates(config: LossConfig, label_counts_K: NDArray[np.integer], rows: int) -> Floats:
    """The rates that a network should predict before it has seen an image, shape (K,), for ``build_model``.

    The constant answer that costs least: the label's rate r; under weighted BCE w r / (w r + 1 - r);
    under logit adjustment what is left of the log-odds, (1 - tau) log(r / (1 - r)).
    """
    bias_K = log_odds(label_counts_K, rows)
    if config.name == "weighted_bce":
        bias_K = bias_K + np.log(positive_weights(config, label_counts_K, rows))
    elif config.name == "logit_adjusted":
        bias_K = (1 - config.tau) * bias_K
    rates_K: Floats = 1 / (1 + np.exp(-bias_K))
    return rates_K


def _one_per_label(
    thing: str, values: tuple[float, ...], labels: int, names: Sequence[str] | None = None
) -> Floats:
    if len(values) != labels:
        known = f" in the order {', '.join(names)}" if names else ""
        remedy = f"Give {labels} numbers{known}, or leave it out to have them computed."
        raise ConfigError(thing, f"must hold one number for each of the {labels} labels", len(values), remedy)
    return np.asarray(values, np.float64)


def _name(k: int, names: Sequence[str] | None) -> str:
    return names[k] if names else f"label {k}"
