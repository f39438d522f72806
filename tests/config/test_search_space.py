from __future__ import annotations

import pickle

import pytest
from pydantic import ValidationError

from canopy.config import FieldRange, SearchSpace, SweepConfig, VariantConfig, derive, describe_domain
from canopy.config.search_space import named_space
from canopy.config.sweep_fields import contains, value_of
from canopy.errors import ConfigError

VARIANT = VariantConfig(name="a")
MAPPING = {"optim.lr": {"low": "1e-4", "high": 0.01, "log": True}, "loss.name": ["bce", "focal"]}


def test_a_space_is_read_from_a_mapping_or_a_name() -> None:
    space = SearchSpace(MAPPING)
    assert space.root == {
        "optim.lr": FieldRange(low=1e-4, high=0.01, log=True),
        "loss.name": ("bce", "focal"),
    }
    assert SearchSpace(space.to_json()) == space
    assert SearchSpace("recipe").to_json() == "recipe"
    assert space != SearchSpace("recipe")
    assert len({space, SearchSpace(MAPPING)}) == 1


def test_a_section_holds_a_space() -> None:
    settings = SweepConfig.model_validate({"space": MAPPING, "variants": {"b": "recipe"}})
    assert settings.space == SearchSpace(MAPPING)
    assert derive(settings, trials=3).variants == {"b": SearchSpace("recipe")}
    assert pickle.loads(pickle.dumps(settings)) == settings
    with pytest.raises(ValidationError, match="known name"):
        SweepConfig.model_validate({"space": "none"})


def test_an_unknown_key_of_a_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim.lr: hi must be the name of an option"):
        SearchSpace({"optim.lr": {"low": 1, "high": 2, "hi": 3}})


def test_the_recipe_lies_around_the_variants_own_values() -> None:
    variant = derive(VARIANT, optim=derive(VARIANT.optim, lr=0.08, ema_decay=0.9995))
    space = named_space("recipe", variant, (0, 4), (0.25, 0.75))
    assert all(contains(domain, value_of(variant, name)) for name, domain in space.items())
    assert space["optim.lr"] == FieldRange(low=0.02, high=0.32, log=True)


def test_a_focal_range_may_be_a_point() -> None:
    space = SearchSpace("focal").resolve(VARIANT, (2, 2), (0.25, 0.75))
    assert space["loss.gamma"] == (2,)
    assert space["loss.alpha"] == FieldRange(low=0.25, high=0.75)


def test_domains_in_words() -> None:
    assert describe_domain(FieldRange(low=0.001, high=0.1, log=True)) == "0.001 to 0.1 (log)"
    assert describe_domain(FieldRange(low=8, high=64, step=8)) == "8 to 64 (step 8)"
    assert describe_domain(("bce", 0.25, None)) == "bce, 0.25, None"
