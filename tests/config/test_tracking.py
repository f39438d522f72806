from __future__ import annotations

import pytest
from pydantic import ValidationError

from canopy.config import TrackingConfig


@pytest.mark.parametrize(
    "address", ["http://me:hunter2@mlflow:5000", "https://hunter2@mlflow", "https://mlflow/?api_key=hunter2"]
)
def test_credentials_in_the_address_are_refused(address: str) -> None:
    with pytest.raises(ValidationError, match=r"tracking.mlflow_uri must not hold credentials") as caught:
        TrackingConfig(mlflow_uri=address)
    assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_plain_address_is_taken() -> None:
    assert TrackingConfig(mlflow_uri="http://mlflow:5000").mlflow_uri == "http://mlflow:5000"
