"""Experiment tracking: TensorBoard and MLflow."""

from __future__ import annotations

from canopy.config.section import Section


class TrackingConfig(Section):
    """Where to log training metrics, in addition to the run directory and Ray's metrics."""

    tensorboard: bool = True
    """Write TensorBoard event files to train/VARIANT/foldN/tensorboard."""
    mlflow_uri: str | None = None
    """Address of an MLflow server (http://…), without credentials; needs the extra canopy-eo[mlflow]."""
    mlflow_experiment: str = "canopy"
    """Name of the MLflow experiment; each training is one MLflow run in it."""
