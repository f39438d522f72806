"""Labels of the chips, their annotation noise, and the best reachable score.

A chip's *true* labels are those that its pixels show; its *written* labels are those in the CSV, after
annotation noise of known strength. From the noise follow P(written | scene) and the best reachable F1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, assert_never

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from canopy.config import GenerateConfig
from canopy.labels import LabelSet

PLANET_CHIPS = 40_479
PLANET_COUNTS = {
    "agriculture": 12_315,
    "artisinal_mine": 339,
    "bare_ground": 862,
    "blooming": 332,
    "blow_down": 98,
    "clear": 28_431,
    "cloudy": 2_089,
    "conventional_mine": 100,
    "cultivation": 4_477,
    "habitation": 3_660,
    "haze": 2_697,
    "partly_cloudy": 7_261,
    "primary": 37_513,
    "road": 8_071,
    "selective_logging": 340,
    "slash_burn": 209,
    "water": 7_411,
}
"""Number of chips by label in the training table of "Planet: Understanding the Amazon from Space"."""

LABELS = LabelSet(tuple(PLANET_COUNTS))
WEATHER = ("clear", "partly_cloudy", "haze", "cloudy")
"""Exactly one of these per chip; a cloudy chip has no other label."""
GROUND = tuple(name for name in LABELS.names if name not in WEATHER)

WEATHER_COLUMNS = [LABELS.index(name) for name in WEATHER]
GROUND_COLUMNS = [LABELS.index(name) for name in GROUND]
CLOUDY = WEATHER.index("cloudy")

CORRELATIONS = {
    ("agriculture", "cultivation"): 0.60,
    ("agriculture", "habitation"): 0.55,
    ("agriculture", "road"): 0.70,
    ("agriculture", "artisinal_mine"): -0.25,
    ("agriculture", "blooming"): -0.30,
    ("agriculture", "selective_logging"): -0.15,
    ("agriculture", "slash_burn"): 0.25,
    ("artisinal_mine", "bare_ground"): 0.35,
    ("artisinal_mine", "blooming"): -0.25,
    ("artisinal_mine", "conventional_mine"): 0.20,
    ("artisinal_mine", "cultivation"): -0.20,
    ("artisinal_mine", "road"): 0.15,
    ("artisinal_mine", "slash_burn"): -0.20,
    ("artisinal_mine", "water"): 0.65,
    ("bare_ground", "conventional_mine"): 0.30,
    ("bare_ground", "habitation"): 0.20,
    ("bare_ground", "primary"): -0.55,
    ("bare_ground", "road"): 0.20,
    ("bare_ground", "slash_burn"): 0.15,
    ("blooming", "habitation"): -0.30,
    ("blooming", "primary"): 0.50,
    ("blooming", "road"): -0.35,
    ("blooming", "selective_logging"): 0.10,
    ("blooming", "water"): -0.25,
    ("blow_down", "habitation"): -0.20,
    ("blow_down", "primary"): 0.50,
    ("blow_down", "road"): -0.40,
    ("blow_down", "slash_burn"): 0.20,
    ("blow_down", "water"): -0.35,
    ("conventional_mine", "cultivation"): -0.15,
    ("conventional_mine", "habitation"): 0.30,
    ("conventional_mine", "road"): 0.30,
    ("cultivation", "habitation"): 0.30,
    ("cultivation", "primary"): 0.30,
    ("cultivation", "road"): 0.15,
    ("cultivation", "slash_burn"): 0.45,
    ("habitation", "primary"): -0.20,
    ("habitation", "road"): 0.75,
    ("habitation", "selective_logging"): -0.15,
    ("habitation", "slash_burn"): 0.15,
    ("habitation", "water"): 0.10,
    ("primary", "road"): -0.20,
    ("primary", "selective_logging"): 0.50,
    ("primary", "slash_burn"): 0.50,
    ("primary", "water"): -0.35,
    ("road", "selective_logging"): 0.25,
    ("road", "water"): 0.15,
    ("slash_burn", "water"): -0.15,
}
"""Tetrachoric correlations of the ground labels on Planet's chips that are not cloudy, rounded; pairs
below 0.1 are left out, and those of the labels that never occur without forest are limited to 0.5."""


@dataclass(frozen=True)
class SyntheticLabels:
    """The labels of N chips; K columns as in :data:`LABELS`."""

    true_NK: NDArray[np.uint8]
    """What is in the picture, 0 or 1."""
    written_NK: NDArray[np.uint8]
    """What the CSV says, 0 or 1."""
    oracle_NK: NDArray[np.float32]
    """P(written = 1 | the scene), in [0, 1]."""


def draw_labels(config: GenerateConfig) -> SyntheticLabels:
    """Labels of all chips: a pure function of the config, and row by row the same for any ``rows``.

    Ground labels come from a Gaussian copula: correlated normals, each cut at its label's quantile, so
    the marginal rates are exact and the dependences are Planet's pairwise ones. The weather is drawn
    separately. Noise: see :func:`oracle`.
    """
    rates_K = label_rates(config.min_rate)
    weather_P, ground_P = rates_K[WEATHER_COLUMNS], ground_rates(rates_K)
    n = config.rows
    # A separate stream for every quantity, filled row by row: row i never depends on ``rows``.
    streams = [np.random.default_rng([config.seed, 0, part]) for part in range(5)]
    latent_NG = streams[0].standard_normal((n, len(GROUND))) @ np.linalg.cholesky(correlation_matrix()).T
    ground_NG = latent_NG > norm.isf(ground_P)
    weather_N = np.searchsorted(weather_P.cumsum()[:-1], streams[1].random(n), side="right")
    true_NK = _assemble(weather_N, ground_NG)

    redraw, to_cloudy = _weather_noise(config.miss_rate, weather_P)
    redrawn_N = np.searchsorted(weather_P.cumsum()[:-1], streams[2].random(n), side="right")
    noisy_weather_N = np.where(streams[3].random(n) < redraw, redrawn_N, weather_N)
    keep_P = (1 - config.miss_rate) / (1 - to_cloudy)
    invent_P = spurious_rates(config)[GROUND_COLUMNS] / (1 - to_cloudy)
    says_yes_NG = streams[4].random((n, len(GROUND))) < np.where(ground_NG, keep_P, invent_P)
    says_yes_NG &= (weather_N != CLOUDY)[:, None]
    return SyntheticLabels(true_NK, _assemble(noisy_weather_N, says_yes_NG), oracle(true_NK, config))


def oracle(true_NK: NDArray[np.uint8], config: GenerateConfig) -> NDArray[np.float32]:
    """P(written = 1 | scene), shape (N, K): the exact posterior under the noise model.

    - Ground labels: a true label is written with probability 1 - ``miss_rate``, a false one with
      :func:`spurious_rates`; under full cloud none is written.
    - Weather is redrawn from its overall distribution with the probability that makes ``miss_rate`` of
      all chips wrong; this keeps the share of every weather. A chip
      mistaken for cloudy loses its other labels; this loss is included in ``miss_rate``.
    """
    weather_P = label_rates(config.min_rate)[WEATHER_COLUMNS]
    redraw, _ = _weather_noise(config.miss_rate, weather_P)
    probs_NK = np.where(true_NK, 1 - config.miss_rate, spurious_rates(config))
    probs_NK[true_NK[:, WEATHER_COLUMNS[CLOUDY]] == 1] = 0
    probs_NK[:, WEATHER_COLUMNS] = (1 - redraw) * true_NK[:, WEATHER_COLUMNS] + redraw * weather_P
    return probs_NK.astype(np.float32)


def label_rates(min_rate: float = 0.0) -> NDArray[np.float64]:
    """True share of each label, shape (K,): Planet's, with those below ``min_rate`` raised to it.

    ``clear`` loses what the rarer weather labels gain.
    """
    rates_K = np.array([max(PLANET_COUNTS[name] / PLANET_CHIPS, min_rate) for name in LABELS.names])
    rates_K[LABELS.index("clear")] = 1 - sum(rates_K[LABELS.index(name)] for name in WEATHER[1:])
    return rates_K


def ground_rates(rates_K: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each ground label among the chips that are not cloudy, shape (G,).

    At most 0.98, which lowers ``primary`` where ``cloudy`` was raised much.
    """
    return np.asarray(np.minimum(rates_K[GROUND_COLUMNS] / (1 - rates_K[LABELS.index("cloudy")]), 0.98))


def spurious_rates(config: GenerateConfig) -> NDArray[np.float64]:
    """Chance that each ground label is written where it is not, shape (K,); 0 for weather.

    Proportional to the label's frequency: with one probability for all labels, most positives of the
    rarest labels would be false.
    """
    rates_K = label_rates(config.min_rate)
    out_K = np.zeros(len(LABELS))
    out_K[GROUND_COLUMNS] = config.spurious_rate * rates_K[GROUND_COLUMNS] / rates_K[GROUND_COLUMNS].mean()
    return out_K


@cache
def correlation_matrix() -> NDArray[np.float64]:
    """:data:`CORRELATIONS` as a positive definite matrix, shape (G, G), ones on the diagonal.

    Pairwise estimates need not fit together: negative eigenvalues are lifted and the diagonal is
    scaled back to one (the spectral correction of Rebonato and Jäckel, 1999).
    """
    matrix = np.eye(len(GROUND))
    for (one, other), value in CORRELATIONS.items():
        i, j = GROUND.index(one), GROUND.index(other)
        matrix[i, j] = matrix[j, i] = value
    values, vectors = np.linalg.eigh(matrix)
    matrix = (vectors * np.maximum(values, 0.02)) @ vectors.T
    scale = np.sqrt(np.diag(matrix))
    return np.asarray(matrix / np.outer(scale, scale))


def ceiling_decisions(
    oracle_NK: NDArray[np.floating], average: Literal["macro", "micro"] = "macro"
) -> NDArray[np.bool_]:
    """The decisions, shape (N, K), that no classifier can beat in expected F1.

    Derivation: the counts of true positives and of written positives add up over rows, so for
    decisions d the F1 of a label tends to F(d) = 2 Σ p d / (Σ p + Σ d), with p = P(written = 1 | scene).
    Adding a row with probability p raises F exactly when p > F/2; so the best d takes the rows of the
    m largest p, and at the best m the cut lies at F*/2 (Lipton, Elkan, Narayanaswamy 2014, "Optimal
    thresholding of classifiers to maximize F1 measure"). All m are tried, so F* is exact. ``macro``
    does this label by label; ``micro`` pools all cells, as F1 over pooled counts has the same form.

    Score the decisions against the *written* labels. The score bounds every classifier that sees only the
    picture; clouds and blur lower it further.
    """
    probs_NK = np.asarray(oracle_NK, np.float64)
    match average:
        case "macro":
            return np.stack([_best_f1_cut(column) for column in probs_NK.T], axis=1)
        case "micro":
            return _best_f1_cut(probs_NK.ravel()).reshape(probs_NK.shape)
        case _:
            assert_never(average)


def _best_f1_cut(probs_M: NDArray[np.float64]) -> NDArray[np.bool_]:
    order = np.argsort(-probs_M, kind="stable")
    hits_M = probs_M[order].cumsum()
    f1_M = 2 * hits_M / (hits_M[-1] + np.arange(1, len(order) + 1)) if hits_M[-1] > 0 else hits_M
    decided_M = np.zeros(len(probs_M), bool)
    if hits_M[-1] > 0:
        decided_M[order[: f1_M.argmax() + 1]] = True
    return decided_M


def cloud_noise(config: GenerateConfig) -> float:
    """Probability that a chip of other weather is mistaken for cloudy, and loses its labels."""
    return _weather_noise(config.miss_rate, label_rates(config.min_rate)[WEATHER_COLUMNS])[1]


def _weather_noise(miss_rate: float, weather_P: NDArray[np.float64]) -> tuple[float, float]:
    """Probabilities that the weather is drawn again, and that a chip is mistaken for cloudy."""
    redraw = miss_rate / (1 - float((weather_P**2).sum()))
    return redraw, redraw * float(weather_P[CLOUDY])


def _assemble(weather_N: NDArray[np.intp], ground_NG: NDArray[np.bool_]) -> NDArray[np.uint8]:
    labels_NK = np.zeros((len(weather_N), len(LABELS)), np.uint8)
    labels_NK[:, GROUND_COLUMNS] = ground_NG & (weather_N != CLOUDY)[:, None]
    labels_NK[np.arange(len(weather_N)), np.array(WEATHER_COLUMNS)[weather_N]] = 1
    return labels_NK
