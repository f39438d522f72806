"""Multi-label metrics as pure functions over arrays, and their bootstrap intervals."""

from canopy.metrics.multilabel import (
    Counts,
    Floats,
    average_precision,
    calibration_error,
    coverage_error,
    decide,
    log_loss,
    macro_f1,
    mean_average_precision,
    mean_defined,
    micro_f1,
    per_class_f1,
    per_class_fbeta,
    per_image_fbeta,
    ranking_loss,
    without_positives,
)

__all__ = [
    "Counts",
    "Floats",
    "average_precision",
    "calibration_error",
    "coverage_error",
    "decide",
    "log_loss",
    "macro_f1",
    "mean_average_precision",
    "mean_defined",
    "micro_f1",
    "per_class_f1",
    "per_class_fbeta",
    "per_image_fbeta",
    "ranking_loss",
    "without_positives",
]
