"""Class weights, label priors and initial rates, from label frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from canopy.config import LossConfig
from canopy.errors import ConfigError, DataError

Floats = NDArray[np.float64]
EFFECTIVE_BETA = 0.999
"""Beta of the effective number: beyond about 1 / (1 - beta) = 1,000 examples it hardly grows."""


def check_counts(
    config: LossConfig, label_counts_K: NDArray[np.integer], rows: int, names: Sequence[str] | None = None
) -> None:
    """Refuse label counts from which the loss cannot be built.

    Args:
        config: the loss.
        label_counts_K: number of positives of each label, shape (K,).
        rows: number of training rows.
        names: names of the labels; used in the error message.

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
        missing = [_name(int(k), names) for k in np.flatnonzero(label_counts_K == count)]
        if missing:
            raise DataError(
                f"loss.name={config.name}",
                f"needs at least one {kind} of every label among the {rows} training rows",
                f"none of {', '.join(missing)}",
                "Drop that label, change data.seed or the split column so that train has some, or use bce, "
                "focal or asymmetric.",
            )


def positive_weights(
    config: LossConfig, label_counts_K: NDArray[np.integer], rows: int, names: Sequence[str] | None = None
) -> Floats:
    """Weights of each label's positives in weighted BCE, at most ``weight_cap``, shape (K,).

    ``ratio`` is negatives / positives, which balances the two exactly; ``sqrt`` is its square root;
    ``effective`` is the ratio of effective numbers, E(n) = (1 - beta^n) / (1 - beta), Cui et al.,
    "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019. All weights are 1 for other losses.

    Args:
        config: the loss.
        label_counts_K: number of positives of each label, shape (K,).
        rows: number of training rows.
        names: names of the labels; used in the error message.

    Raises:
        ConfigError: when the number of ``class_weights`` is not K.
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
    """Alpha of the focal loss for each label, in [0, 1], shape (K,); 0.5 for other losses and without alpha.

    ``frequency`` weights positives sqrt(negatives / positives) times as much as negatives:
    alpha = sqrt(neg) / (sqrt(neg) + sqrt(pos)).

    Raises:
        ConfigError: when the number of alphas is not K.
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
    """log(n / (rows - n)) of each label's count n, shape (K,); n is clipped to [0.5, rows - 0.5]."""
    positives_K = np.clip(label_counts_K.astype(np.float64), 0.5, rows - 0.5)
    odds_K: Floats = np.log(positives_K) - np.log(rows - positives_K)
    return odds_K


def initial_rates(config: LossConfig, label_counts_K: NDArray[np.integer], rows: int) -> Floats:
    """Label rates that an untrained network should predict, shape (K,), for ``build_model``.

    They are the constant prediction with the lowest loss: the label's rate r; for weighted BCE
    w r / (w r + 1 - r); for logit adjustment the remaining log-odds are (1 - tau) log(r / (1 - r)).

    Raises:
        ConfigError: when the number of ``class_weights`` is not K.
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
        remedy = f"Give {labels} numbers{known}, or omit the option to have them computed."
        raise ConfigError(thing, f"must hold one number for each of the {labels} labels", len(values), remedy)
    return np.asarray(values, np.float64)


def _name(k: int, names: Sequence[str] | None) -> str:
    return names[k] if names else f"label {k}"
