from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from canopy.config import ModelConfig, fingerprint, fingerprint_content

HALVES = (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pretrained": True, "weights": "w.safetensors"}, "model.weights must be unset"),
        ({"weights": "s3://key:secret@b/w"}, "model.weights must not hold credentials"),
        ({"weights_sha256": "0" * 64}, "model.weights_sha256 needs model.weights"),
        ({"weights": "w", "weights_sha256": "abc"}, "weights_sha256"),
        (
            {"mean": HALVES},
            r"model.mean and model.std must be set together.* 0.5\) and None",
        ),
        ({"value_scale": 255}, "model.mean and model.std must be set together"),
        ({"mean": HALVES, "std": (0.5, 0, 0.5)}, "std"),
        ({"mean": HALVES, "std": HALVES, "band_order": "grb"}, "band_order"),
    ],
    ids=str,
)
def test_a_broken_rule_names_the_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**fields)


def test_the_same_network_without_weights_keeps_everything_else() -> None:
    own = ModelConfig(
        backbone="test_resnet", cbam="all", weights="w", weights_sha256="0" * 64, mean=HALVES, std=HALVES
    )
    assert own.is_transfer
    assert not own.untrained.is_transfer
    assert own.untrained == ModelConfig(backbone="test_resnet", cbam="all", mean=HALVES, std=HALVES)
    assert ModelConfig(pretrained=True).is_transfer


def test_a_later_field_enters_the_fingerprint_only_when_it_is_set() -> None:
    plain, stated = ModelConfig(), ModelConfig(mean=HALVES, std=HALVES)
    assert set(fingerprint_content(stated)) - set(fingerprint_content(plain)) == {"mean", "std"}
    assert not {"mean", "std", "value_scale", "band_order", "weights_sha256"} & set(
        fingerprint_content(plain)
    )
    assert fingerprint(plain) != fingerprint(stated)
