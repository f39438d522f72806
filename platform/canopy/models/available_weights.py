"""Weights that lie on this machine, and how to bring others: what ``canopy weights`` prints."""

from __future__ import annotations

import timm

from canopy.config import ModelConfig
from canopy.errors import ConfigError, nearest, refuse_credentials
from canopy.models import hub
from canopy.models.backbones import fetch_pretrained
from canopy.models.weights_cache import cache_directory, cached_copies
from canopy.models.weights_source import read_source
from canopy.storage import files

FETCH = "canopy weights --fetch SOURCE"
EXAMPLES = (
    f"fetch others: {FETCH}, where SOURCE is a timm name (tf_efficientnet_lite0), hf-hub:USER/NAME or a URI",
    "use them: --variants.0.model.pretrained true, or --variants.0.model.weights SOURCE",
)


def listing() -> str:
    """The weights on this machine, one line each, then how to fetch and use others."""
    found = [*hub.cached_repositories(), *cached_copies()]
    wide = max((len(weights.source) for weights in found), default=0)
    lines = [
        f"{files.shown(weights.source):<{wide}}  {weights.size / 1e6:8.1f} MB  {weights.path}"
        for weights in sorted(found, key=lambda weights: weights.source)
    ]
    nothing = f"no weights on this machine (looked in {hub.cache()} and {cache_directory()})"
    return "\n".join([*(lines or [nothing]), "", *EXAMPLES])


def fetch_weights(source: str) -> str:
    """Bring weights to this machine and check that they can be read; a line that says so.

    Args:
        source: a timm name, or an address as in ``model.weights``.

    Raises:
        ConfigError: when the weights cannot be had.
    """
    if ":" not in source and "/" not in source:
        if not timm.is_model(source):
            raise ConfigError("--fetch", "must be a timm model", source, nearest(source, timm.list_models()))
        fetch_pretrained(ModelConfig(backbone=source, pretrained=True))
        return f"{source}: timm's default weights are on this machine; use them with model.pretrained true"
    refuse_credentials("--fetch", source)
    weights = read_source(ModelConfig(weights=source), "--fetch")
    made_for = f", made for {weights.backbone}" if weights.backbone else ""
    statistics = f"; {weights.statistics.text}" if weights.statistics else ""
    return f"{weights.source}: {len(weights.file.tensors)} tensors{made_for}{statistics}"
