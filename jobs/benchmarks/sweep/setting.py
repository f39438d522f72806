"""Data and variant of the benchmarks of the sweep."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.benchmarks.ablation.data import planet32_directory

from canopy.config import (
    DataConfig,
    Experiment,
    GenerateConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ResourcesConfig,
    VariantConfig,
    fingerprint,
)
from canopy.data.catalogue import Catalogue
from canopy.data.loading.chip_source import ChipSource
from canopy.runtime.console import Console
from canopy.runtime.stage import Stage
from canopy.stages import prepare
from canopy.stages.context import StageContext
from canopy.storage.run_dir import RunDir

DataName = Literal["generated", "planet32"]
DOCS = Path(__file__).resolve().parents[3] / "platform" / "docs" / "sweep"

VARIANT = VariantConfig(
    name="resnet",
    model=ModelConfig(backbone="test_resnet"),
    loss=LossConfig(name="focal"),
    swept=True,
    optim=OptimConfig(epochs=6, batch_size=64, lr=4e-3, weight_decay=0.02),
    scale=ResourcesConfig(workers=1, cpus_per_worker=0.5),
)
"""The variant: hand-set values of the ``demo`` preset, at a size that trains in seconds."""
GENERATED = DataConfig(
    source="generated",
    image_size=32,
    val_fraction=0.3,
    test_fraction=0.4,
    generate=GenerateConfig(rows=5000, size=32, min_rate=0.03),
)
PLANET = DataConfig(source="kaggle", image_size=32, val_fraction=0.15, test_fraction=0.3, limit=12_000)


@dataclass(frozen=True)
class BenchmarkData:
    """Prepared chips.

    Args:
        config: experiment with this data and :data:`VARIANT`.
        catalogue: rows, labels, splits.
        chips: decoded chips.
        cache: folder of the benchmark's runs.
    """

    config: Experiment
    catalogue: Catalogue
    chips: ChipSource
    cache: Path


def prepare_benchmark(data: DataName, cache: Path, root: str | None) -> BenchmarkData:
    """Generate or unpack the chips and prepare them, unless the cache holds them.

    Raises:
        DataError: when the Planet chips are not in ``root``.
    """
    section = GENERATED
    if data == "planet32":
        shared = os.environ.get("CANOPY_SHARED_DATA")
        found = root or (str(Path(shared) / "planet32") if shared else None)
        section = PLANET.model_copy(update={"root": planet32_directory(found, cache)})
    config = Experiment(preset=f"sweep-{data}", data=section, variants=(VARIANT,))
    run_dir = RunDir(str(cache / f"data-{fingerprint(config.data)[:8]}"))
    context = StageContext(config, run_dir, Console())
    prepare.run(context)
    catalogue = prepare.load_catalogue(context)
    return BenchmarkData(config, catalogue, prepare.shared_chips(context, catalogue, Stage.PREPARE), cache)
