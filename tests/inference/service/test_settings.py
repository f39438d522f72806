"""Settings of the service: names of models, bounds."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from canopy.errors import ConfigError, InputError
from canopy.inference.service.settings import ServiceOptions, named_models


def test_models_have_names() -> None:
    assert named_models(["runs/a"]) == {"default": "runs/a"}
    assert named_models(["a=runs/a", "b-2=s3://x/y?region=eu=1"]) == {
        "a": "runs/a",
        "b-2": "s3://x/y?region=eu=1",
    }
    assert named_models(["runs/x=1"]) == {"default": "runs/x=1"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "must be given at least once"),
        (["a=x", "a=y"], "must have distinct names"),
        (["a", "b"], "must have distinct names"),
        (["=x"], "must be RUN_DIR or NAME=RUN_DIR"),
        (["a="], "must be RUN_DIR or NAME=RUN_DIR"),
        (["ä=x"], "must be RUN_DIR or NAME=RUN_DIR"),
        (["a=s3://key:secret@bucket/x"], "must not hold credentials"),
    ],
)
def test_names_that_cannot_be(given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        named_models(given)


def test_bounds() -> None:
    options = ServiceOptions(max_body_mb=1.5, max_megapixels=2)
    assert (options.max_body_bytes, options.max_pixels) == (1_500_000, 2_000_000)
    for wrong in (
        {"max_images": 0},
        {"timeout_s": 0},
        {"max_body_mb": float("nan")},
        {"unknown": 1},
        {"gpus_per_replica": 1.5},
        {"min_replicas": 3, "max_replicas": 2},
    ):
        with pytest.raises((ValidationError, ConfigError)):
            ServiceOptions.model_validate(wrong)
