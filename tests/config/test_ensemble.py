from __future__ import annotations

import pytest
from pydantic import ValidationError

from canopy.config import EnsembleConfig


def test_a_floor_needs_the_mixed_objective() -> None:
    with pytest.raises(
        ValidationError, match=r"ensemble.micro_floor needs ensemble.objective mixed. Got: 'f2'"
    ):
        EnsembleConfig(micro_floor=0.8, objective="f2")
    assert EnsembleConfig(micro_floor=0.8).micro_floor == 0.8


@pytest.mark.parametrize("costs", [(-1, 2), (0, 0)])
def test_costs_are_not_negative_and_not_both_zero(costs: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match=r"ensemble.costs of road must be two numbers"):
        EnsembleConfig(costs={"road": costs})
    assert EnsembleConfig(costs={"road": (0, 1)}).costs["road"] == (0, 1)
