from __future__ import annotations

from typing import Any

import pytest

from canopy.config import (
    Experiment,
    FieldValues,
    SearchSpace,
    VariantConfig,
    derive,
    fingerprint,
    grid_points,
    study_for,
    taken_fields,
)
from canopy.config.validation_errors import config_error
from canopy.errors import ConfigError

FOCAL = {"name": "a", "loss": {"name": "focal"}, "swept": True}
PLAIN = {"name": "b"}


def experiment(sweep: dict[str, Any], *variants: dict[str, Any]) -> Experiment:
    """An experiment as a config file gives it; a broken rule is one config error."""
    try:
        return Experiment.model_validate({"variants": variants or (FOCAL, PLAIN), "sweep": sweep})
    except ValueError as error:
        raise config_error("c.yaml", error) from None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (
            {"space": {"optim.lrr": {"low": 1e-4, "high": 1e-2}}},
            r"optim.lrr must be a field.*Nearest: optim.lr",
        ),
        ({"space": {"loss.gama": [1, 2]}}, r"loss.gama must be a field of a variant.*Nearest: loss.gamma"),
        ({"space": {"scale.workers": [1, 2]}}, r"scale.workers cannot be swept: it does not change"),
        ({"space": {"optim.epochs": [1, 2]}}, r"optim.epochs cannot be swept: sweep.epochs sets"),
        (
            {"space": {"loss.gamma": {"low": 0, "high": 11}}},
            r"loss.gamma must have range.*less than or equal to 10.*11",
        ),
        ({"space": {"optim.ema_decay": {"low": 0.5, "high": 1}}}, r"optim.ema_decay.*less than 1"),
        (
            {"space": {"optim.lr": {"low": 1, "high": 1}}},
            r"optim.lr must be a range.*this one is empty.*low 1, high 1",
        ),
        ({"space": {"optim.lr": {"low": 2, "high": 1}}}, r"optim.lr must be a range.*this one is reversed"),
        (
            {"space": {"optim.weight_decay": {"low": 0, "high": 1, "log": True}}},
            r"weight_decay must lie above zero",
        ),
        (
            {"space": {"optim.lr": {"low": 1, "high": 2, "step": 3}}},
            r"optim.lr must have a step of at most high - low",
        ),
        (
            {"space": {"optim.lr": {"low": 1, "high": 2, "log": True, "step": 1}}},
            r"must have no step with log",
        ),
        ({"space": {"optim.lr": {"low": 1}}}, r"optim.lr: high must be given"),
        (
            {"space": {"optim.lr": {"low": 1, "hi": 2}}},
            r"optim.lr: hi.*must be the name of an option|high must be given",
        ),
        ({"space": {"optim.lr": "big"}}, r"optim.lr must be a range .* or a list of choices. Got: 'big'"),
        ({"space": {"optim.lr": []}}, r"optim.lr must have at least one choice"),
        ({"space": {"optim.lr": [1, 1]}}, r"optim.lr must name each choice once"),
        ({"space": {"optim.lr": [[1]]}}, r"optim.lr must have choices that are numbers, words"),
        (
            {"space": {"optim.batch_size": {"low": 8.5, "high": 64}}},
            r"optim.batch_size must be a range of whole numbers",
        ),
        ({"space": {"model.cbam": {"low": 0, "high": 1}}}, r"model.cbam must have a list of choices"),
        (
            {"space": {"loss.name": ["bce", "focel"]}},
            r"loss.name must have choices that the field takes.*'focel'",
        ),
        (
            {"space": {"loss.clip": {"low": 0, "high": 0.2}}},
            r"variant a: swept needs loss.name asymmetric to take loss.clip",
        ),
        (
            {"space": {"loss.name": ["bce", "focal"], "loss.tau": [1, 2]}},
            r"loss.tau needs loss.name logit_adjusted",
        ),
        ({"space": {}}, r"sweep.space.*must be the name of a space, or a mapping"),
        ({"space": "focl"}, r"sweep.space.*must be a known name.*Nearest: focal"),
        ({"variants": {"c": "focal"}}, r"sweep.variants.c must name a variant. Got: 'c'"),
        ({"variants": {"b": "recipe"}}, r"sweep.variants.b must belong to a variant with swept"),
        (
            {"space": "focal-grid", "trials": 8},
            r"sweep.trials must be at least 9, the points of the grid. Got: 8",
        ),
        ({"space": "focal", "sampler": "grid"}, r"loss.gamma must have a step or be a list of choices"),
        ({"space": "recipe", "sampler": "halton"}, r"sweep.sampler in c.yaml must be tpe, random or grid"),
        ({"minutes": 0}, r"sweep.minutes.*greater than 0"),
        ({"members": 7}, r"sweep.members in c.yaml must be at most sweep.trials. Got: 7 and 6"),
        (
            {"members": 2, "reference": "b"},
            r"sweep.members: variant b must have swept, to be replaced by its members. Got: false",
        ),
        (
            {"members": 3, "space": {"loss.name": ["bce", "focal"]}},
            r"sweep.members: variant a must have a space of at least 3 points. Got: 2 \(sweep.space\)",
        ),
        (
            {"space": {"finetune.method": ["full", "lp_ft"]}},
            r"finetune.method cannot be swept: trials train in one phase",
        ),
        ({"space": {"finetune.swa_epochs": [0, 2]}}, r"swa_epochs cannot be swept: a trial is scored by"),
        ({"members": 1}, r"sweep.members.*greater than or equal to 2"),
        (
            {"space": "recipe", "members": 2, "finalists": 1},
            r"sweep.finalists in c.yaml must be 0 or left out with sweep.members",
        ),
        (
            {"space": "recipe", "sampler": "random", "warm_start": ["runs/a"]},
            r"c.yaml: sweep.warm_start needs the sampler tpe. Got: random \(sweep.space\)",
        ),
        ({"warm_start": ["runs/a"]}, r"sweep.warm_start needs the sampler tpe. Got: halton"),
        (
            {"space": "recipe", "equal_cost": True},
            r"sweep.equal_cost needs one of model.backbone, model.input_size, augment.crop in the space",
        ),
        ({"final_seeds": 1}, r"sweep.final_seeds.*greater than or equal to 2"),
    ],
)
def test_bad_input_is_one_clear_error(sweep: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        experiment(sweep)
    assert "c.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bce_variant_cannot_take_the_focal_sweep() -> None:
    with pytest.raises(
        ConfigError, match=r"variant b: swept needs loss.name focal to take loss.gamma.*'bce'"
    ):
        experiment({}, {"name": "b", "swept": True})


def test_a_variant_takes_only_fields_of_its_space() -> None:
    with pytest.raises(ConfigError, match=r"variant a: swept must name fields of its search space.*optim.lr"):
        experiment({}, {**FOCAL, "swept": ["optim.lr"]})


@pytest.mark.parametrize(
    ("sweep", "sampler", "finalists", "plain"),
    [
        ({}, "halton", 0, True),
        ({"finalists": 1}, "halton", 1, False),
        ({"space": "focal"}, "tpe", 2, False),
        ({"space": "focal-grid", "trials": 9}, "grid", 2, False),
        ({"space": "recipe", "sampler": "random", "finalists": 0}, "random", 0, False),
        ({"members": 2}, "halton", 0, False),
        ({"space": "recipe", "members": 2}, "tpe", 0, False),
    ],
)
def test_the_space_decides_what_is_not_given(
    sweep: dict[str, Any], sampler: str, finalists: int, plain: bool
) -> None:
    config = experiment(sweep)
    (study,) = config.sweep_studies
    assert study.sampler == sampler
    assert config.sweep.effective_finalists == finalists
    assert config.sweep.is_plain_focal == plain


def test_members_need_names_of_their_own() -> None:
    names = [one.name for one in experiment({"members": 3}).trained_variants]
    assert names == ["a-1", "a-2", "a-3", "b"]
    with pytest.raises(ConfigError, match=r"variant a must leave the names of its members free. Got: 'a-2'"):
        experiment({"members": 2}, FOCAL, {"name": "a-2"})
    long = {**FOCAL, "name": "a" * 63}
    with pytest.raises(ConfigError, match=r"short enough to be followed by -2. Got: 63 characters"):
        experiment({"members": 2}, long)
    assert [one.name for one in experiment({}, long).trained_variants] == ["a" * 63]


@pytest.mark.parametrize("name", ["focal", "recipe", "losses"])
def test_named_spaces_fit_every_variant(name: str) -> None:
    experiment({"space": name})


def test_each_variant_takes_the_result_of_its_own_study() -> None:
    follower = {**FOCAL, "name": "c", "swept": ["loss.gamma"]}
    sweep = {"variants": {"b": {"optim.lr": [0.1, 0.2]}}}
    config = experiment(sweep, FOCAL, {**PLAIN, "swept": True}, follower, {"name": "d"})
    assert [study.name for study in config.sweep_studies] == ["a", "b"]
    found = {variant.name: study_for(config, variant) for variant in config.variants}
    assert {name: study and study.name for name, study in found.items()} == {
        "a": "a",
        "b": "b",
        "c": "a",
        "d": None,
    }
    assert taken_fields(config.variants[2], {"loss.gamma": 1.0, "loss.alpha": 0.5}) == {"loss.gamma": 1.0}


def test_without_a_follower_of_the_reference_only_own_spaces_are_swept() -> None:
    config = experiment({"variants": {"b": {"optim.lr": [0.1, 0.2]}}}, {**PLAIN, "swept": True})
    assert [study.name for study in config.sweep_studies] == ["b"]


def test_a_grid_leaves_out_what_is_not_read() -> None:
    space = {
        "loss.gamma": [1, 2],
        "loss.name": ["bce", "focal"],
        "optim.batch_size": {"low": 8, "high": 16, "step": 8},
    }
    (study,) = experiment({"space": space, "sampler": "grid"}).sweep_studies
    points = grid_points(study)
    assert len(points) == 6
    assert {"loss.name": "bce", "optim.batch_size": 8} in points
    assert {"loss.name": "focal", "loss.gamma": 2, "optim.batch_size": 16} in points
    assert all(type(point["optim.batch_size"]) is int for point in points)


def test_spaces_survive_files_and_count_in_the_fingerprint() -> None:
    config = experiment({"space": {"optim.lr": {"low": "1e-4", "high": 0.1}, "model.cbam": ["none", "last"]}})
    assert Experiment.model_validate(config.model_dump(mode="json")) == config
    other = derive(config, sweep=derive(config.sweep, space=SearchSpace("focal")))
    assert fingerprint(config) != fingerprint(other) != fingerprint(experiment({}))


def test_a_variant_that_takes_the_backbone_takes_the_epochs_of_equal_cost() -> None:
    values: FieldValues = {"model.backbone": "resnet18", "optim.lr": 0.1, "optim.epochs": 7}
    takers = [["model.backbone"], ["optim.lr"], True, False]
    taken = [
        taken_fields(VariantConfig.model_validate({"name": "a", "swept": one}), values) for one in takers
    ]
    assert taken == [
        {"model.backbone": "resnet18", "optim.epochs": 7},
        {"optim.lr": 0.1},
        values,
        {},
    ]
