from __future__ import annotations

import hashlib
import json

import yaml

from canopy.config import (
    AugmentConfig,
    Experiment,
    ResourcesConfig,
    SearchSpace,
    SensorConfig,
    derive,
    fingerprint,
    fingerprint_content,
)
from canopy.config.presets import preset

FINGERPRINTS = {
    "demo": "f545bbaa273edc99e098eb1d19e4aa55d67a8a1f567172e3d2010c155ef1f985",
    "planet32": "a695ac170dbe7b9e51c8baa95a0f0b71d9b54d09b3dc3c8895cf9b7fdeebb195",
    "planet32-long": "5c744a4d18e2252f922cf5b25e59db10663b69cb7742ece70ad92e4b09d93620",
    "amazon": "fedba58da29a61b2b96a478a69f46a42628c57cdf5b6802b865bdd47024e4a45",
    "bigearthnet": "29dc91ba6fe3b2262784a6d40a5030830b7021b173d3dc89f540c051660bdaa9",
}
"""Finished runs carry these: a change makes every stage of every such run start again."""


def test_presets_keep_their_fingerprints() -> None:
    assert {name: fingerprint(preset(name)) for name in FINGERPRINTS} == FINGERPRINTS


def test_content_and_not_places(tiny: Experiment) -> None:
    variant = tiny.variants[0]
    moved = derive(tiny, data=derive(tiny.data, root="/elsewhere"), fleet={"capacity_timeout_s": 5})
    scaled = derive(tiny, variants=(derive(variant, scale=ResourcesConfig(workers=2)), *tiny.variants[1:]))
    reseeded = derive(tiny, variants=(derive(variant, seed=9), *tiny.variants[1:]))
    assert fingerprint(moved) == fingerprint(scaled) == fingerprint(tiny)
    assert fingerprint(reseeded) != fingerprint(tiny)
    assert "root" not in fingerprint_content(tiny)["data"]
    assert "scale" not in fingerprint_content(tiny)["variants"][0]


def test_a_renamed_field_keeps_its_former_name() -> None:
    content = fingerprint_content(AugmentConfig(grayscale=0.25))
    assert content["greyscale"] == 0.25
    assert "grayscale" not in content
    text = json.dumps([content], sort_keys=True, separators=(",", ":"))
    assert fingerprint(AugmentConfig(grayscale=0.25)) == hashlib.sha256(text.encode()).hexdigest()


def test_a_former_config_file_has_the_same_fingerprint(tiny: Experiment) -> None:
    content = tiny.model_dump(mode="json")
    for variant in content["variants"]:
        variant["augment"]["greyscale"] = variant["augment"].pop("grayscale")
    text = yaml.safe_dump(content)
    assert "grayscale" not in text
    former = Experiment.model_validate(yaml.safe_load(text))
    assert former == tiny
    assert fingerprint(former) == fingerprint(tiny)


def test_levels_keep_the_fingerprint_of_whole_numbers() -> None:
    for levels in ({"black": 100, "white": 3000}, {"black": 100.0, "white": 3000.0}):
        text = '[{"bands":null,"black":100,"white":3000}]'
        assert fingerprint(SensorConfig.model_validate(levels)) == hashlib.sha256(text.encode()).hexdigest()
    default = hashlib.sha256(b'[{"bands":null,"black":0,"white":null}]').hexdigest()
    assert fingerprint(SensorConfig()) == fingerprint(SensorConfig(black=0.0)) == default


def test_a_config_file_of_before_the_search_spaces_is_the_same_config() -> None:
    for name, known in FINGERPRINTS.items():
        content = preset(name).model_dump(mode="json")
        for variant in content["variants"]:
            variant["swept_loss"] = variant.pop("swept")
        for field in ("space", "variants", "sampler", "scheduler", "objective", "minutes"):
            content["sweep"].pop(field)
        for field in ("finalists", "final_seeds"):
            content["sweep"].pop(field)
        former = Experiment.model_validate(yaml.safe_load(yaml.safe_dump(content)))
        assert former == preset(name)
        assert fingerprint(former) == known


def test_fields_that_are_set_count_and_defaults_do_not() -> None:
    plain = preset("demo").sweep
    assert "scheduler" not in fingerprint_content(plain)
    assert fingerprint_content(derive(plain, scheduler="none"))["scheduler"] == "none"
    assert fingerprint(derive(plain, scheduler="asha")) == fingerprint(plain)
    assert fingerprint(derive(plain, minutes=3)) != fingerprint(plain)
    spaces = [derive(plain, space=SearchSpace({"optim.lr": {"low": 1, "high": high}})) for high in (2, 3)]
    assert fingerprint(spaces[0]) != fingerprint(spaces[1])


def test_parts_of_any_json_type() -> None:
    assert fingerprint(1, "train") == fingerprint(1, "train") != fingerprint("train", 1)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
