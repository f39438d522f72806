"""Named experiments: each a function that returns a complete config.

``demo`` and ``planet32`` are sized for two CPU cores. A recipe holds no logic: whatever it says could be
written into a ``--config`` file.
"""

from __future__ import annotations

from collections.abc import Callable

from canopy.config import (
    AugmentConfig,
    DataConfig,
    Experiment,
    GenerateConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ScaleConfig,
    SweepConfig,
    VariantConfig,
)
from canopy.errors import ConfigError, nearest

TWO_CORES = ScaleConfig(workers=1, cpus_per_worker=0.25, threads_per_worker=1)
TWO_CORES_DDP = ScaleConfig(workers=2, cpus_per_worker=0.25, threads_per_worker=1)


def demo() -> Experiment:
    """The built-in chips and three small variants: the whole way in a few minutes on two cores."""
    optim = OptimConfig(epochs=6, batch_size=64, lr=6e-3, weight_decay=0.02)
    augment = AugmentConfig(flips=True)
    focal = LossConfig(name="focal")
    return Experiment(
        preset="demo",
        data=DataConfig(
            source="generated",
            generate=GenerateConfig(rows=5000, size=64, min_rate=0.03),
            image_size=64,
            val_fraction=0.2,
            test_fraction=0.22,
        ),
        variants=(
            VariantConfig(
                name="resnet",
                model=ModelConfig(backbone="test_resnet"),
                loss=focal,
                swept_loss=True,
                augment=augment,
                optim=optim,
                scale=TWO_CORES,
            ),
            VariantConfig(
                name="resnet-cbam",
                model=ModelConfig(backbone="test_resnet", cbam="last"),
                loss=focal,
                swept_loss=True,
                augment=augment,
                optim=optim,
                scale=TWO_CORES,
                seed=1,
            ),
            VariantConfig(
                name="efficientnet",
                model=ModelConfig(backbone="test_efficientnet"),
                loss=LossConfig(name="bce"),
                augment=augment,
                optim=optim,
                scale=TWO_CORES_DDP,
                seed=2,
            ),
        ),
        sweep=SweepConfig(trials=6, epochs=3, grace_epochs=1, rows=1500, concurrent=2),
    )


def planet32() -> Experiment:
    """Kaggle's Planet chips shrunk to 32 px, trained from scratch on two cores in well under an hour."""
    optim = OptimConfig(epochs=6, batch_size=128, lr=6e-3, weight_decay=0.02)
    augment = AugmentConfig(flips=True)
    big = ModelConfig(backbone="test_resnet", input_size=48)
    focal = LossConfig(name="focal")
    return Experiment(
        preset="planet32",
        data=DataConfig(source="kaggle", image_size=32, val_fraction=0.2, test_fraction=0.2),
        variants=(
            VariantConfig(
                name="resnet",
                model=big,
                loss=focal,
                swept_loss=True,
                augment=augment,
                optim=optim,
                scale=TWO_CORES,
            ),
            VariantConfig(
                name="resnet-cbam",
                model=ModelConfig(backbone="test_resnet", cbam="last", input_size=48),
                loss=focal,
                swept_loss=True,
                augment=augment,
                optim=optim,
                scale=TWO_CORES,
                seed=1,
            ),
            VariantConfig(
                name="efficientnet",
                model=ModelConfig(backbone="test_efficientnet", input_size=48),
                loss=LossConfig(name="bce"),
                augment=augment,
                optim=optim,
                scale=TWO_CORES_DDP,
                seed=2,
            ),
        ),
        sweep=SweepConfig(trials=6, epochs=2, rows=6000, concurrent=2),
    )


PRESETS: dict[str, Callable[[], Experiment]] = {"demo": demo, "planet32": planet32}


def preset(name: str) -> Experiment:
    """The experiment called ``name``.

    Raises:
        ConfigError: when there is none.
    """
    if name not in PRESETS:
        raise ConfigError("--preset", "must be a known preset", name, nearest(name, PRESETS))
    return PRESETS[name]()
