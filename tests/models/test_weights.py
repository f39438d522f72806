"""Weights on disk: read back to the bit, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.models.networks import SMALL, images, model

from canopy.config import ModelConfig
from canopy.errors import RunDirError
from canopy.models.network import (
    build_model,
)
from canopy.models.weights import load_weights, save_weights


def test_saved_weights_come_back(tmp_path: Path) -> None:
    first = model(cbam="all", head="mlp").eval()
    save_weights(first, tmp_path / "deep" / "m.safetensors", {"variant": "a"})
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["m.safetensors"]
    torch.manual_seed(1)
    second = build_model(ModelConfig(backbone=SMALL, cbam="all", head="mlp"), 5).eval()
    assert load_weights(second, tmp_path / "deep" / "m.safetensors") == {"variant": "a"}
    torch.testing.assert_close(second(images()), first(images()), rtol=0, atol=0)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_weights(model(), tmp_path / "m.safetensors")
    with pytest.raises(RunDirError, match=r"head.final.weight of shape \(5, 96\) instead of \(4, 96\)"):
        load_weights(model(labels=4), tmp_path / "m.safetensors")
    with pytest.raises(RunDirError, match=r"no tensor cbam\.gate"):
        load_weights(model(cbam="last"), tmp_path / "m.safetensors")
    (tmp_path / "bad").write_bytes(b"\x80\x04not safetensors")
    for missing in ("bad", "nothing"):
        with pytest.raises(RunDirError, match="must be a readable safetensors file"):
            load_weights(model(), tmp_path / missing)
