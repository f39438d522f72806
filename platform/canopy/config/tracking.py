"""Experiment tracking: TensorBoard and MLflow."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from canopy.config.section import Section
from canopy.errors import refuse_credentials


class TrackingConfig(Section):
    """Where to log training metrics, in addition to the run directory and Ray's metrics."""

    tensorboard: bool = True
    """Write TensorBoard event files to train/VARIANT/foldN/tensorboard."""
    mlflow_uri: str | None = None
    """Address of an MLflow server (http://…), without credentials; needs the extra canopy-eo[mlflow]."""
    mlflow_experiment: str = "canopy"
    """Name of the MLflow experiment; each training is one MLflow run in it."""

    @model_validator(mode="after")
    def _address_has_no_credentials(self) -> Self:
        if self.mlflow_uri is not None:
            refuse_credentials("tracking.mlflow_uri", self.mlflow_uri)
        return self
