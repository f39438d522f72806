"""Multi-label losses: numbers computed by hand, limits, gradients, invariances."""

from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np
import pydantic
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as torch_bce

from canopy.config import LossConfig
from canopy.losses.multilabel import build_loss

NAMES = (
    "bce",
    "weighted_bce",
    "focal",
    "asymmetric",
    "distribution_balanced",
    "two_way",
    "logit_adjusted",
)


COUNTS_K = np.array([40, 10, 2])


ROWS = 50


LN3 = log(3)  # the logit of probability 3/4


def loss_of(x_NK: Any, y_NK: Any, counts_K: Any = COUNTS_K, rows: int = ROWS, **config: Any) -> float:
    x_NK, y_NK = torch.tensor(x_NK, dtype=torch.float64), torch.tensor(y_NK, dtype=torch.float64)
    return float(build_loss(LossConfig(**config), np.asarray(counts_K), rows)(x_NK, y_NK))


def batch(seed: int = 0, rows: int = 6, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x_NK = scale * torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    return x_NK, (torch.rand(rows, 3, generator=generator) < 0.4).double()


def test_bce_by_hand() -> None:
    # positive at 3/4: -ln .75; negative at 3/4: -ln .25
    assert loss_of([[LN3, LN3]], [[1, 0]], [1, 1], 2, name="bce") == pytest.approx(
        (-log(0.75) - log(0.25)) / 2
    )


@pytest.mark.parametrize(
    ("weighting", "weight"),
    [("ratio", 9.0), ("sqrt", 3.0), ("effective", (1 - 0.999**90) / (1 - 0.999**10))],
)
def test_weighted_bce_by_hand(weighting: Any, weight: float) -> None:
    # 10 positives in 100 rows: 90 / 10 = 9
    got = loss_of([[LN3], [LN3]], [[1], [0]], [10], 100, name="weighted_bce", weighting=weighting)
    assert got == pytest.approx((-weight * log(0.75) - log(0.25)) / 2)


def test_focal_by_hand() -> None:
    # gamma 2, alpha .8: positive at p = 3/4: .8 (1/4)^2 (-ln 3/4); negative at 3/4: .2 (3/4)^2 (-ln 1/4)
    expected = (0.8 * 0.25**2 * -log(0.75) + 0.2 * 0.75**2 * -log(0.25)) / 2
    assert loss_of([[LN3, LN3]], [[1, 0]], [1, 1], 2, name="focal", gamma=2, alpha=0.8) == pytest.approx(
        expected
    )


def test_asymmetric_by_hand() -> None:
    # positive at 3/4, g+ 1: (1/4) (-ln 3/4). negative at 3/4, g- 4, clip .05: q = .7, .7^4 (-ln .3).
    expected = (0.25 * -log(0.75) + 0.7**4 * -log(0.3)) / 2
    got = loss_of(
        [[LN3, LN3]], [[1, 0]], [1, 1], 2, name="asymmetric", gamma_positive=1, gamma_negative=4, clip=0.05
    )
    assert got == pytest.approx(expected)
    # a negative below the clip costs nothing
    free = loss_of([[-LN3]], [[0]], [1], 2, name="asymmetric", clip=0.3)
    assert free == pytest.approx(0, abs=1e-30)


def test_distribution_balanced_by_hand() -> None:
    # Two labels of 20 and 5 positives in 100 rows; a row that has both: r = (1/20, 1/5) / (1/20 + 1/5) =
    # (.2, .8); weights .1 + sigmoid(10 (r - .2)) = .6 and .1 + sigmoid(6).
    weights = (0.6, 0.1 + 1 / (1 + exp(-6)))
    shifts = (0.05 * log(20 / 80), 0.05 * log(5 / 95))
    softplus = [log(1 + exp(-(0.7 + shift))) for shift in shifts]
    expected = sum(w * s for w, s in zip(weights, softplus, strict=True)) / 2
    got = loss_of([[0.7, 0.7]], [[1, 1]], [20, 5], 100, name="distribution_balanced", gamma=0)
    assert got == pytest.approx(expected)
    # A row of the first label only: r = (1, (1/5) / (1/20) = 4). The second is a negative: its logit is
    # doubled, its loss halved, and the focal weight is p^2 of the doubled logit.
    z = 2 * (0.7 + shifts[1])
    p = 1 / (1 + exp(-z))
    first = (0.1 + 1 / (1 + exp(-8))) * (1 - 1 / (1 + exp(-0.7 - shifts[0]))) ** 2 * softplus[0]
    second = (0.1 + 1 / (1 + exp(-38))) * p**2 * log(1 + exp(z)) / 2
    got = loss_of([[0.7, 0.7]], [[1, 0]], [20, 5], 100, name="distribution_balanced", gamma=2)
    assert got == pytest.approx((first + second) / 2)


def test_smoothing_leaves_the_weights_of_the_distribution_balanced_loss() -> None:
    # The row above, s = .1: targets .9 and .1, but it was drawn for its first label alone, r = (1, 4).
    x = [0.7 + shift for shift in (0.05 * log(20 / 80), 0.05 * log(5 / 95))]
    positive, negative = [log(1 + exp(-v)) for v in x], [log(1 + exp(2 * v)) / 2 for v in x]
    first = (0.1 + 1 / (1 + exp(-8))) * (0.9 * positive[0] + 0.1 * negative[0])
    second = (0.1 + 1 / (1 + exp(-38))) * (0.1 * positive[1] + 0.9 * negative[1])
    settings = {"name": "distribution_balanced", "gamma": 0, "label_smoothing": 0.1}
    got = loss_of([[0.7, 0.7]], [[1, 0]], [20, 5], 100, **settings)
    assert got == pytest.approx((first + second) / 2)


def test_two_way_by_hand() -> None:
    # One row, positives at 1 and 2, negatives at 0 and 3, T = 4. Within the row:
    # softplus(4 ln(e^-1/4 + e^-2/4) + ln(e^0 + e^3)). Within labels: only labels with a positive count,
    # and with no negative row in them the log-sum-exp of negatives is -inf: softplus 0.
    row = log(1 + exp(4 * log(exp(-0.25) + exp(-0.5)) + log(1 + exp(3))))
    got = loss_of([[1, 2, 0, 3]], [[1, 1, 0, 0]], [1] * 4, 2, name="two_way", temperature=4)
    assert got == pytest.approx(row)
    # Two rows, one label: the rows are compared, and only the first row has a positive.
    column = log(1 + exp(-1 + 2))
    got = loss_of([[1], [2]], [[1], [0]], [1], 2, name="two_way", temperature=4)
    assert got == pytest.approx(column)


def test_logit_adjusted_by_hand() -> None:
    # rate 1/10, tau 1: the logit ln 9 is shifted to ln 9 + ln(1/9) = 0
    assert loss_of([[log(9)]], [[1]], [10], 100, name="logit_adjusted", tau=1) == pytest.approx(log(2))


def test_label_smoothing_by_hand() -> None:
    # s = .1: targets .9 and .1
    expected = -0.9 * log(0.75) - 0.1 * log(0.25)
    got = loss_of([[LN3, -LN3]], [[1, 0]], [1, 1], 2, name="bce", label_smoothing=0.1)
    assert got == pytest.approx(expected)


@pytest.mark.parametrize(
    "config",
    [
        {"name": "bce"},
        {"name": "focal", "gamma": 0},
        {"name": "asymmetric", "gamma_positive": 0, "gamma_negative": 0, "clip": 0},
        {"name": "weighted_bce", "class_weights": (1, 1, 1)},
        {"name": "logit_adjusted", "tau": 0},
    ],
    ids=str,
)
def test_limits_are_bce(config: dict[str, Any]) -> None:
    x_NK, y_NK = batch()
    for soft_NK in (y_NK, 0.7 * y_NK + 0.1):
        loss = build_loss(LossConfig(**config), COUNTS_K, ROWS)(x_NK, soft_NK)
        torch.testing.assert_close(loss, torch_bce(x_NK, soft_NK))


def test_more_limits() -> None:
    x_NK, y_NK = batch()
    asl = LossConfig(name="asymmetric", gamma_positive=2, gamma_negative=2, clip=0)
    focal = build_loss(LossConfig(name="focal", gamma=2), COUNTS_K, ROWS)(x_NK, y_NK)
    torch.testing.assert_close(build_loss(asl, COUNTS_K, ROWS)(x_NK, y_NK), focal)
    half = build_loss(LossConfig(name="focal", gamma=2, alpha=0.5), COUNTS_K, ROWS)(x_NK, y_NK)
    torch.testing.assert_close(half, focal / 2)
    # a tiny clip is nearly no clip
    nearly = LossConfig(name="asymmetric", gamma_positive=2, gamma_negative=2, clip=1e-9)
    torch.testing.assert_close(build_loss(nearly, COUNTS_K, ROWS)(x_NK, y_NK), focal, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("extra", [{}, {"gamma": 0.5, "gamma_negative": 0.5}], ids=str)
def test_gradients(name: Any, extra: dict[str, Any], soft: bool) -> None:
    x_NK, y_NK = batch()
    extra = {**extra, "alpha": "frequency"} if extra and name == "focal" else extra
    y_NK = 0.8 * y_NK + 0.1 if soft else y_NK
    loss = build_loss(LossConfig(name=name, **extra), COUNTS_K, ROWS)
    assert torch.autograd.gradcheck(lambda x: loss(x, y_NK), (x_NK.requires_grad_(),))


@pytest.mark.parametrize("name", NAMES)
def test_twice_the_batch_costs_the_same(name: Any) -> None:
    x_NK, y_NK = batch()
    loss = build_loss(LossConfig(name=name), COUNTS_K, ROWS)
    once, twice = loss(x_NK, y_NK), loss(x_NK.repeat(2, 1), y_NK.repeat(2, 1))
    if name == "two_way":  # within a label, twice as many rows are compared: by the paper's definition
        assert once < twice < once + (4 + 1) * log(2)
    else:
        torch.testing.assert_close(once, twice)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "extra", [{}, {"gamma": 0.3, "gamma_negative": 0.3, "label_smoothing": 0.1}, {"clip": 1e-8}], ids=str
)
def test_extreme_bfloat16_logits_stay_finite(name: Any, extra: dict[str, Any]) -> None:
    extremes = torch.tensor(
        [0.0, -0.0, 1e-30, 20, -20, 100, -100, 3e4, -3e4, 3e30, -3e30], dtype=torch.bfloat16
    )
    x_NK = extremes.repeat(2)[:, None].repeat(1, 3).requires_grad_()
    y_NK = torch.cat([torch.zeros(11, 3), torch.ones(11, 3)])
    loss = build_loss(LossConfig(name=name, **extra), COUNTS_K, ROWS)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(x_NK, y_NK)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert x_NK.grad is not None
    assert torch.isfinite(x_NK.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_rows_without_and_with_all_labels_are_fine(name: Any) -> None:
    x_NK, _ = batch(rows=4)
    loss = build_loss(LossConfig(name=name), COUNTS_K, ROWS)
    for y_NK in (torch.zeros(4, 3), torch.ones(4, 3)):
        x_NK.grad = None
        value = loss(x_NK.requires_grad_(), y_NK)
        value.backward()
        assert torch.isfinite(value)
        assert x_NK.grad is not None
        assert torch.isfinite(x_NK.grad).all()


@pytest.mark.parametrize(
    "bad",
    [
        {"gamma": -1},
        {"name": "focal", "alpha": 1.2},
        {"name": "focal", "alpha": -0.1},
        {"name": "focal", "alpha": (0.5, 1.5)},
        {"name": "focal", "alpha": "rates"},
        {"name": "bce", "alpha": 0.5},
        {"name": "focal", "class_weights": (1.0, 2.0)},
        {"gamma_negative": -0.5},
        {"clip": 1.0},
        {"weight_cap": 0.5},
        {"name": "weighted_bce", "class_weights": (1.0, 0.0)},
        {"label_smoothing": 0.5},
        {"temperature": 0},
        {"name": "hinge"},
    ],
    ids=str,
)
def test_bad_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        LossConfig(**bad)
