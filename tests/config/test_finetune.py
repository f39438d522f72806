from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from canopy.config import FinetuneConfig, VariantConfig, derive, fingerprint, fingerprint_content

OWN = {"weights": "w.safetensors"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"finetune": {"method": "probe", "l2_sp": 0.1}},
            "finetune.l2_sp needs a finetune.method that trains",
        ),
        (
            {"finetune": {"method": "probe", "input_sizes": [32]}},
            "finetune.input_sizes needs a finetune.method",
        ),
        ({"finetune": {"method": "lp_ft"}, "model": {}}, "finetune.method lp_ft needs weights to start from"),
        ({"finetune": {"lora_rank": 4, "l2_sp": 0.1}}, "finetune.l2_sp must be off with finetune.lora_rank"),
        ({"finetune": {"lora_rank": 4, "method": "probe"}}, "finetune.lora_rank needs a finetune.method"),
        (
            {"finetune": {"lora_rank": 4}, "optim": {"layer_decay": 0.8}},
            "finetune.lora_rank needs optim.layer_decay 1",
        ),
        ({"finetune": {"lora_rank": 4}, "model": {}}, "finetune.lora_rank needs weights to start from"),
        ({"finetune": {"batch_norm": "frozen"}, "model": {}}, "finetune.batch_norm frozen needs weights"),
        (
            {"finetune": {"method": "probe"}, "model": {**OWN, "head": "csra"}},
            "needs model.head linear or mlp",
        ),
        ({"finetune": {"method": "lp_ft"}, "model": {**OWN, "cbam": "last"}}, "Got: head linear, cbam last"),
        ({"finetune": {"swa_epochs": 6}}, "finetune.swa_epochs must be below optim.epochs. Got: 6 and 6"),
        ({"finetune": {"unfreeze_epochs": 7}}, "finetune.unfreeze_epochs must be below optim.epochs"),
        (
            {"finetune": {"wise_ft": True}, "optim": {"backbone_lr_factor": 0}},
            "finetune.wise_ft needs a backbone that is trained",
        ),
        ({"finetune": {"input_sizes": [32, 64]}}, "finetune.input_sizes needs model.input_size"),
        ({"finetune": {"input_sizes": [4]}, "model": {**OWN, "input_size": 32}}, "input_sizes"),
    ],
    ids=str,
)
def test_a_broken_rule_names_the_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        VariantConfig.model_validate({"name": "a", "model": OWN, **fields})


def test_what_needs_no_weights() -> None:
    plain = VariantConfig.model_validate({"name": "a", "model": {"input_size": 64}})
    derive(plain, finetune=FinetuneConfig(swa_epochs=2, input_sizes=(32, 64)))


def test_the_default_leaves_fingerprints_as_they_were() -> None:
    plain = VariantConfig.model_validate({"name": "a", "model": OWN})
    assert "finetune" not in fingerprint_content(plain)
    probed = derive(plain, finetune=FinetuneConfig(method="probe"))
    assert fingerprint_content(probed)["finetune"]["method"] == "probe"
    assert fingerprint(probed) != fingerprint(plain)
