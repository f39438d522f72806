"""One experiment is one frozen, typed config.

Sections are pydantic models: unknown names are refused, ranges stand in ``Field``, rules across
fields in validators. ``model_copy(update=…)`` does not validate, so derive with :func:`derive`.
What a section says about *where* and *with how much* (paths, workers, logging) is marked
``PLACE``: it never enters a fingerprint, so moving a run or giving it more workers redoes nothing.
"""

from canopy.config.augment import AUGMENT_PRESETS, AugmentConfig, AugmentName
from canopy.config.data import DataConfig, GenerateConfig, SensorConfig, TableConfig
from canopy.config.ensemble import CalibrationKind, CombinationKind, EnsembleConfig, SweepConfig
from canopy.config.experiment import Experiment, FleetConfig, TrackingConfig
from canopy.config.section import PLACE, Fraction, Positive, Section, allowed, derive, essence, fingerprint
from canopy.config.variant import (
    LossConfig,
    ModelConfig,
    OptimConfig,
    SamplingConfig,
    ScaleConfig,
    VariantConfig,
)

__all__ = [
    "AUGMENT_PRESETS",
    "PLACE",
    "AugmentConfig",
    "AugmentName",
    "CalibrationKind",
    "CombinationKind",
    "DataConfig",
    "EnsembleConfig",
    "Experiment",
    "FleetConfig",
    "Fraction",
    "GenerateConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "Positive",
    "SamplingConfig",
    "ScaleConfig",
    "Section",
    "SensorConfig",
    "SweepConfig",
    "TableConfig",
    "TrackingConfig",
    "VariantConfig",
    "allowed",
    "derive",
    "essence",
    "fingerprint",
]
