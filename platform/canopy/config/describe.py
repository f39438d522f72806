"""Networks and losses in a few words, the same in the terminal, in a dry run and in the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from canopy.config import ModelConfig

READS: dict[str, dict[str, str]] = {
    "weighted_bce": {"weighting": "weights"},
    "focal": {"gamma": "γ", "alpha": "α"},
    "asymmetric": {"gamma_positive": "γ⁺", "gamma_negative": "γ⁻", "clip": "clip"},
    "two_way": {"temperature": "T"},
    "logit_adjusted": {"tau": "τ"},
}
"""The parameters that a loss reads, by their signs."""


def network_words(model: ModelConfig) -> str:
    """The backbone, with its attention."""
    return model.backbone + ("" if model.cbam == "none" else f" + CBAM ({model.cbam})")


def loss_words(loss: Mapping[str, Any]) -> str:
    """The fields of a ``LossConfig``: its name and the parameters that it reads; what is None is left out."""
    read = dict(READS.get(loss["name"], {}))
    if loss.get("class_weights") is not None and "weighting" in read:
        read = {"class_weights": read["weighting"]}  # given ones stand in for those of the frequencies
    found = [(sign, loss.get(key)) for key, sign in read.items()]
    texts = [f"{sign} {_text(value)}" for sign, value in found if value is not None]
    return ", ".join([str(loss["name"]).replace("_", " "), *texts])


def _text(value: Any) -> str:
    if isinstance(value, float | int):
        return f"{value:.3g}"
    return value if isinstance(value, str) else "per label"
