"""The section of soft labels, and its rules."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from tests.support import tiny_experiment

from canopy.config import DistillConfig, VariantConfig, derive, fingerprint_content
from canopy.config.sweep_fields import sweepable_fields


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"weight": 0.7}, r"distill\.weight needs distill\.run"),
        ({"temperature": 2.0}, r"distill\.temperature needs distill\.run"),
        ({"run": "r", "weight": 0}, "greater than 0"),
        ({"run": "r", "temperature": 0.5}, "greater than or equal to 1"),
    ],
)
def test_settings_without_a_run_or_out_of_range_are_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        DistillConfig(**fields)


def test_a_distilled_network_has_one_fold() -> None:
    tiny = tiny_experiment(variants=1, trials=0)
    student = derive(tiny.variants[0], distill=DistillConfig(run="other"))
    assert derive(tiny, variants=(student,)).folds == 1
    with pytest.raises(
        ValidationError, match=r"variant resnet: distill\.run needs an experiment with folds 1"
    ):
        derive(tiny, variants=(student,), folds=3)


def test_fingerprints_cover_the_section_where_it_is_used() -> None:
    plain = VariantConfig(name="v")
    assert "distill" not in fingerprint_content(plain)
    assert fingerprint_content(derive(plain, distill=DistillConfig(run="r")))["distill"]["run"] == "r"


def test_a_sweep_cannot_change_what_its_trials_do_not_use() -> None:
    assert not [name for name in sweepable_fields() if name.startswith("distill.")]
