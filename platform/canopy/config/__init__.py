"""One experiment is one frozen, typed config; each section is a module.

Sections are pydantic models: unknown names are refused, ranges are part of each ``Field``, rules across
fields are validators that raise :class:`canopy.errors.ConfigError`. ``model_copy(update=…)`` does not
validate: use :func:`derive`. Fields that only decide where or how fast a result is made (paths, workers,
logging) are marked ``NOT_FINGERPRINTED``: changing them redoes no stage. A field that is added later is
marked ``FINGERPRINTED_IF_SET``: with its default, runs that were made before stay valid.
"""

from canopy.config.augment import AUGMENT_PRESETS, AugmentConfig, AugmentName
from canopy.config.bands import COLORS, BandConfig
from canopy.config.bigearthnet import SENTINEL1, SENTINEL2, BigEarthNetConfig, sentinel2_bands
from canopy.config.budget import BudgetConfig
from canopy.config.data import (
    BlockConfig,
    DataConfig,
    GenerateConfig,
    SensorConfig,
    TableConfig,
    allowed_count,
)
from canopy.config.distill import DistillConfig
from canopy.config.ensemble import CalibrationKind, CombinationKind, EnsembleConfig
from canopy.config.experiment import Experiment
from canopy.config.finetune import FinetuneConfig
from canopy.config.fingerprints import fingerprint, fingerprint_content
from canopy.config.fleet import FleetConfig
from canopy.config.model import ModelConfig
from canopy.config.search_space import FieldRange, SearchSpace, Space, describe_domain
from canopy.config.section import (
    FINGERPRINTED_IF_SET,
    NOT_FINGERPRINTED,
    Fraction,
    Positive,
    Section,
    derive,
)
from canopy.config.shards import SHARD_SOURCES, ShardsConfig
from canopy.config.study import Study, grid_points, members_of, study_for, taken_fields
from canopy.config.sweep import SweepConfig
from canopy.config.sweep_fields import FieldValues, describe_values, set_fields
from canopy.config.tracking import TrackingConfig
from canopy.config.variant import (
    LossConfig,
    OptimConfig,
    ResourcesConfig,
    SamplingConfig,
    VariantConfig,
)

__all__ = [
    "AUGMENT_PRESETS",
    "COLORS",
    "FINGERPRINTED_IF_SET",
    "NOT_FINGERPRINTED",
    "SENTINEL1",
    "SENTINEL2",
    "SHARD_SOURCES",
    "AugmentConfig",
    "AugmentName",
    "BandConfig",
    "BigEarthNetConfig",
    "BlockConfig",
    "BudgetConfig",
    "CalibrationKind",
    "CombinationKind",
    "DataConfig",
    "DistillConfig",
    "EnsembleConfig",
    "Experiment",
    "FieldRange",
    "FieldValues",
    "FinetuneConfig",
    "FleetConfig",
    "Fraction",
    "GenerateConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "Positive",
    "ResourcesConfig",
    "SamplingConfig",
    "SearchSpace",
    "Section",
    "SensorConfig",
    "ShardsConfig",
    "Space",
    "Study",
    "SweepConfig",
    "TableConfig",
    "TrackingConfig",
    "VariantConfig",
    "allowed_count",
    "derive",
    "describe_domain",
    "describe_values",
    "fingerprint",
    "fingerprint_content",
    "grid_points",
    "members_of",
    "sentinel2_bands",
    "set_fields",
    "study_for",
    "taken_fields",
]
