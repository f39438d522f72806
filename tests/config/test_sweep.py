from __future__ import annotations

import pytest
from pydantic import ValidationError

from canopy.config import SweepConfig


@pytest.mark.parametrize(
    ("name", "given"), [("gamma", (3, 1)), ("gamma", (0, 11)), ("alpha", (-0.1, 1)), ("alpha", (0, 1.1))]
)
def test_ranges_are_ordered_and_bounded(name: str, given: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match=rf"sweep.{name} must be a range within"):
        SweepConfig.model_validate({name: given})


def test_a_range_may_be_a_point() -> None:
    assert SweepConfig(gamma=(2, 2)).gamma == (2, 2)
