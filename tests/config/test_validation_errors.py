from __future__ import annotations

import pytest
from pydantic import ValidationError

from canopy.config import DataConfig, Experiment, LossConfig, OptimConfig, TrackingConfig
from canopy.config.validation_errors import config_error
from canopy.errors import ConfigError


def error_of(content: object, section: type = Experiment, name: str = "") -> ConfigError:
    with pytest.raises(ValidationError) as caught:
        section.model_validate(content)  # type: ignore[attr-defined]
    return config_error("c.yaml", caught.value, name)


def test_a_rule_of_ours_keeps_its_four_parts() -> None:
    error = error_of({"variants": [{"name": "a", "loss": {"name": "focal", "alpha": 2.0}}]})
    assert error.thing == "variants.0.loss.alpha in c.yaml"
    assert error.constraint == "must lie in [0, 1]"
    assert error.got == "2.0"
    assert error.remedy.startswith("It is the weight of positives")


def test_a_rule_across_sections_keeps_its_thing() -> None:
    error = error_of({"variants": [{"name": "a", "augment": {"crop": 80}}]})
    assert error.thing == "the experiment in c.yaml: variant a: augment.crop"


@pytest.mark.parametrize(
    ("content", "thing"),
    [
        ({"val_fraction": 0}, "data in c.yaml: data.val_fraction and data.test_fraction"),
        ({"table": {"delimiter": "tab"}}, "data.table.delimiter in c.yaml"),
        ({"sensor": {"black": 9, "white": 3}}, "data.sensor.white in c.yaml"),
        ({"root": "s3://key:secret@bucket"}, "data.root in c.yaml"),
    ],
)
def test_a_thing_is_named_by_its_full_path(content: object, thing: str) -> None:
    assert error_of(content, DataConfig, "data").thing == thing


def test_parts_may_hold_any_text() -> None:
    name = "Got: no. model"
    error = error_of({"variants": [{"name": "a", "augment": name}]})
    assert (error.constraint, error.got) == (
        "must be a section or the name of an augmentation",
        repr(name),
    )


@pytest.mark.parametrize(
    ("content", "thing", "constraint", "got"),
    [
        ({"lr": 0}, "lr", "must be greater than 0", 0),
        ({"epochs": 0}, "epochs", "must be greater than or equal to 1", 0),
        ({"layer_decay": 1.5}, "layer_decay", "must be less than or equal to 1", 1.5),
        ({"ema_decay": 1}, "ema_decay", "must be less than 1", 1),
        ({"epochs": "many"}, "epochs", "must be a whole number", "many"),
        ({"epochs": 1.5}, "epochs", "must be a whole number", 1.5),
        ({"lr": "fast"}, "lr", "must be a number", "fast"),
        ({"sync_batchnorm": "perhaps"}, "sync_batchnorm", "must be true or false", "perhaps"),
        ({"precision": "float64"}, "precision", "must be 'float32' or 'bfloat16'", "float64"),
        ({"epoch": 3}, "epoch", "must be the name of an option", "epoch"),
    ],
)
def test_pydantics_errors_are_translated_by_type(
    content: object, thing: str, constraint: str, got: object
) -> None:
    error = error_of(content, OptimConfig, "optim")
    assert (error.thing, error.constraint, error.got) == (f"optim.{thing} in c.yaml", constraint, got)


def test_a_missing_field_and_a_bad_name() -> None:
    error = error_of({"variants": [{}]})
    assert str(error).startswith("variants.0.name in c.yaml must be given. Got: nothing. Add it.")
    assert "must match the pattern" in error_of({"variants": [{"name": "no/slash"}]}).constraint
    assert error_of({"variants": []}).constraint == "must have at least 1 entries"


def test_further_errors_are_counted() -> None:
    error = error_of({"gamma": -1, "tau": -1, "clip": 2}, LossConfig)
    assert error.remedy == "Correct it. (2 more after this one.)"


def test_secrets_are_not_repeated() -> None:
    address = "https://me:hunter2@mlflow.example"
    error = error_of({"mlflow_uri": address}, TrackingConfig, "tracking")
    assert "hunter2" not in f"{error} {error.args}"
    assert "MLFLOW_TRACKING_PASSWORD" in error.remedy


def test_the_value_of_an_unknown_option_is_not_repeated() -> None:
    error = error_of({"mlflow_password": "hunter2"}, TrackingConfig, "tracking")
    assert "hunter2" not in f"{error} {error.args}"
    assert "tracking.mlflow_password in c.yaml must be the name of an option" in str(error)
