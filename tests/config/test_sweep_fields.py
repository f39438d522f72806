from __future__ import annotations

import re

import pytest

from canopy.cli.help import documentation
from canopy.config import FieldRange, LossConfig, SamplingConfig, VariantConfig, describe_values, set_fields
from canopy.config.sweep_fields import FIXED, READERS, contains, is_read, number_type, sweepable_fields

FOCAL = VariantConfig(name="a", loss=LossConfig(name="focal", alpha=0.25))


@pytest.mark.parametrize(("owner", "section"), [(LossConfig, "loss"), (SamplingConfig, "sampling")])
def test_readers_are_those_that_the_documentation_names(owner: type, section: str) -> None:
    documented = {}
    for field, text in documentation(owner).items():
        if found := re.match(r"For (``\w+``(?: and ``\w+``)*):", text):
            documented[f"{section}.{field}"] = tuple(re.findall(r"``(\w+)``", found[1]))
    known = {name: readers for name, (method, readers) in READERS.items() if method == f"{section}.name"}
    assert documented == known


def test_every_field_but_the_fixed_ones_can_be_swept() -> None:
    fields = sweepable_fields()
    assert {"loss.gamma", "optim.lr", "augment.mixup_alpha", "sampling.power", "model.backbone"} <= set(
        fields
    )
    assert not set(FIXED) & set(fields)
    assert not any(name.startswith("scale.") for name in fields)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("optim.lr", float), ("optim.warmup_fraction", float), ("optim.clip_norm", float)),
        *(("loss.alpha", float), ("optim.batch_size", int), ("model.input_size", int)),
        *(("model.cbam", None), ("augment.flips", None)),
    ],
)
def test_number_types(name: str, kind: type | None) -> None:
    assert number_type(sweepable_fields()[name]) is kind


def test_fields_that_another_loss_does_not_read_take_their_default() -> None:
    variant = set_fields(FOCAL, {"loss.name": "bce", "optim.lr": 0.1})
    assert variant.loss == LossConfig()
    assert variant.optim.lr == 0.1
    assert set_fields(FOCAL, {}) == FOCAL
    assert set_fields(FOCAL, {"loss.gamma": 1.0}).loss.alpha == 0.25


def test_what_is_read_depends_on_the_drawn_method() -> None:
    assert is_read("loss.gamma", FOCAL, {})
    assert not is_read("loss.gamma", FOCAL, {"loss.name": "bce"})
    assert is_read("optim.lr", FOCAL, {"loss.name": "bce"})


def test_domains_contain_values() -> None:
    assert contains(FieldRange(low=0, high=2), 2.0)
    assert not contains(FieldRange(low=0, high=2), None)
    assert not contains(FieldRange(low=0, high=2), True)
    assert contains((None, "a"), None)
    assert not contains(("a",), "b")


def test_points_in_words() -> None:
    assert describe_values({}) == "the default"
    assert describe_values({"loss.gamma": 2.0, "loss.alpha": 0.25}) == "γ 2.00, α 0.25"
    assert describe_values({"optim.lr": 0.00312, "loss.name": "bce"}) == "lr 0.00312, name bce"
