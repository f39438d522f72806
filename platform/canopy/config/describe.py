"""Short descriptions of models and losses for the console, the dry run and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from canopy.config.model import ModelConfig

LOSS_PARAMETERS: dict[str, dict[str, str]] = {
    "weighted_bce": {"weighting": "weights"},
    "focal": {"gamma": "γ", "alpha": "α"},
    "asymmetric": {"gamma_positive": "γ⁺", "gamma_negative": "γ⁻", "clip": "clip"},
    "two_way": {"temperature": "T"},
    "logit_adjusted": {"tau": "τ"},
}
"""Symbols of the parameters in the description of a loss, by loss and field name."""


def describe_model(model: ModelConfig) -> str:
    """The backbone and its attention, such as ``resnet50 + CBAM (last)``."""
    return model.backbone + ("" if model.cbam == "none" else f" + CBAM ({model.cbam})")


def describe_loss(loss: Mapping[str, Any]) -> str:
    """The name of the loss and its parameters that are not None, such as ``focal, γ 2, α 0.25``.

    Args:
        loss: the fields of a ``LossConfig``.
    """
    symbols = dict(LOSS_PARAMETERS.get(loss["name"], {}))
    if loss.get("class_weights") is not None and "weighting" in symbols:
        symbols = {"class_weights": symbols["weighting"]}  # given weights replace computed ones
    values = [(symbol, loss.get(field)) for field, symbol in symbols.items()]
    parameters = [f"{symbol} {_text(value)}" for symbol, value in values if value is not None]
    return ", ".join([str(loss["name"]).replace("_", " "), *parameters])


def _text(value: object) -> str:
    if isinstance(value, float | int):
        return f"{value:.3g}"
    return value if isinstance(value, str) else "per label"
