"""Presets: named experiments, each a function that returns a complete config.

``demo`` and those of ``planet32`` are sized for two CPU cores, ``amazon`` and ``bigearthnet`` for GPUs.
A preset has no logic: a ``--config`` file can hold the same values.
"""

from __future__ import annotations

from collections.abc import Callable

from canopy.config import (
    AUGMENT_PRESETS,
    AugmentConfig,
    DataConfig,
    Experiment,
    GenerateConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ResourcesConfig,
    SweepConfig,
    VariantConfig,
    derive,
    sentinel2_bands,
)
from canopy.errors import ConfigError, nearest

# A quarter of a CPU per worker leaves CPUs to Ray Data on a machine with two cores.
TWO_CORES = ResourcesConfig(workers=1, cpus_per_worker=0.25, threads_per_worker=1)
TWO_CORES_DDP = ResourcesConfig(workers=2, cpus_per_worker=0.25, threads_per_worker=1)


def small_variants(
    epochs: int, batch_size: int, lr: float, input_size: int | None
) -> tuple[VariantConfig, ...]:
    """Three small variants, trained from scratch on CPUs: a ResNet, the same with CBAM, and a BYOBNet.

    The backbones have 0.2 to 0.4 million weights. The BYOBNet trains with two workers.

    Args:
        epochs: number of epochs of each variant.
        batch_size: global batch size.
        lr: peak learning rate.
        input_size: side to which chips are resized, in pixels; None: not resized.
    """
    optim = OptimConfig(epochs=epochs, batch_size=batch_size, lr=lr, weight_decay=0.02)
    resnet = VariantConfig(
        name="resnet",
        model=ModelConfig(backbone="test_resnet", input_size=input_size),
        loss=LossConfig(name="focal"),
        swept=True,
        augment=AugmentConfig(flips=True),
        optim=optim,
        scale=TWO_CORES,
    )
    with_cbam = derive(resnet.model, cbam="last")
    byobnet = derive(resnet.model, backbone="test_byobnet")
    return (
        resnet,
        derive(resnet, name="resnet-cbam", model=with_cbam, seed=1),
        derive(
            resnet,
            name="byobnet",
            model=byobnet,
            loss=LossConfig(name="bce"),
            swept=False,
            scale=TWO_CORES_DDP,
            seed=2,
        ),
    )


def demo() -> Experiment:
    """Demonstration: all stages on the built-in chips with three small variants, in minutes on two cores.

    Rare labels are raised to a share of 3 %, which gives each at least 25 positives in the test split.
    """
    return Experiment(
        preset="demo",
        data=DataConfig(
            source="generated",
            generate=GenerateConfig(rows=5000, size=64, min_rate=0.03),
            image_size=64,
            val_fraction=0.2,
            test_fraction=0.22,
        ),
        variants=small_variants(epochs=8, batch_size=64, lr=6e-3, input_size=None),
        sweep=SweepConfig(trials=6, epochs=3, grace_epochs=1, rows=1500, concurrent=2),
    )


def planet32() -> Experiment:
    """Quick run on Kaggle's Planet chips at 32 px: three small variants, under 40 minutes on two cores."""
    variants = small_variants(epochs=10, batch_size=128, lr=3e-3, input_size=64)
    return Experiment(
        preset="planet32",
        data=DataConfig(source="kaggle", image_size=32, val_fraction=0.15, test_fraction=0.2),
        variants=tuple(derive(v, optim=derive(v.optim, ema_decay=0.995), tta="d4") for v in variants),
        sweep=SweepConfig(trials=6, epochs=2, grace_epochs=1, rows=6000, concurrent=2),
    )


def planet32_long() -> Experiment:
    """Best score on Kaggle's Planet chips at 32 px: two variants, three folds, 1.5 hours on two cores.

    Many epochs with a long moving average of the weights, thresholds fitted on out-of-fold probabilities of
    all training chips, and the mean of six networks; docs/recipe.md gives the effect of each. ``val`` only
    selects epochs and is therefore small. Two trainings run at the same time, one per core.
    """
    quick = planet32()
    byobnet = VariantConfig(
        name="byobnet",
        model=ModelConfig(backbone="test_byobnet", input_size=64),
        loss=LossConfig(name="bce"),
        augment=AugmentConfig(flips=True, crop_padding=2),
        optim=OptimConfig(epochs=70, batch_size=128, lr=4e-3, weight_decay=0.05, ema_decay=0.9995),
        tta="d4",
        scale=derive(TWO_CORES, cpus_per_worker=0.75),
    )
    efficientnet = derive(byobnet.model, backbone="test_efficientnet")
    return derive(
        quick,
        preset="planet32-long",
        data=derive(quick.data, val_fraction=0.05),
        variants=(byobnet, derive(byobnet, name="efficientnet", model=efficientnet, seed=1)),
        folds=3,
        sweep=derive(quick.sweep, trials=0),
    )


def planet32_transfer() -> Experiment:
    """Kaggle's Planet chips at 32 px with ImageNet weights: one EfficientNet-Lite0, three folds, two cores.

    The chips are enlarged to 96 px, as fine structures need the resolution that the weights know. The
    backbone's learning rate is half of the head's. One training at a time uses both cores.
    """
    quick = planet32()
    lite0 = VariantConfig(
        name="lite0",
        model=ModelConfig(backbone="tf_efficientnet_lite0", pretrained=True, input_size=96),
        loss=LossConfig(name="bce"),
        augment=AugmentConfig(flips=True, crop_padding=2),
        optim=OptimConfig(
            epochs=12,
            batch_size=64,
            lr=1e-3,
            backbone_lr_factor=0.5,
            weight_decay=0.05,
            warmup_fraction=0.1,
            ema_decay=0.999,
        ),
        tta="d4",
        scale=ResourcesConfig(workers=1, cpus_per_worker=1.5, threads_per_worker=2),
    )
    return derive(
        quick,
        preset="planet32-transfer",
        data=derive(quick.data, val_fraction=0.05),
        variants=(lite0,),
        folds=3,
        sweep=derive(quick.sweep, trials=0),
    )


ENHANCED = derive(AUGMENT_PRESETS["enhanced"], crop=224, place="device")
"""The ``enhanced`` augmentation for 256 px chips: random 224 px squares, eight symmetries, rotation within
±90°, strong color jitter, occasional grayscale and blur. It runs on the training GPU, because rotation and
jitter on CPUs cannot keep up with a GPU."""

ONE_GPU = ResourcesConfig(workers=1, cpus_per_worker=4, gpus_per_worker=1, threads_per_worker=4)
TWO_GPUS = derive(ONE_GPU, workers=2)


def amazon() -> Experiment:
    """Kaggle's Planet chips at 256 px on a cluster with GPUs: four pretrained variants, five folds.

    ResNet-50, ResNet-101, EfficientNet-B3 and ResNet-50 with CBAM, each with the two-layer head, dropout 0.5
    and the swept focal loss. The backbone's learning rate is a third of the head's. ResNet-101 and
    EfficientNet-B3 take about twice as long per image as ResNet-50 and get two GPUs, the others get one, so
    that all variants end at about the same time. Six GPUs train one fold of each variant at the same time;
    with fewer, trainings queue.
    """
    resnet50 = VariantConfig(
        name="resnet50",
        model=ModelConfig(backbone="resnet50", head="mlp", dropout=0.5, pretrained=True),
        loss=LossConfig(name="focal"),
        swept=True,
        augment=ENHANCED,
        optim=OptimConfig(
            epochs=15,
            batch_size=128,
            lr=6e-4,
            backbone_lr_factor=1 / 3,
            weight_decay=0.02,
            warmup_fraction=0.1,
            ema_decay=0.999,
            patience=5,
            precision="bfloat16",
        ),
        tta="d4",
        scale=ONE_GPU,
    )

    def other(name: str, seed: int, scale: ResourcesConfig, **model: str) -> VariantConfig:
        return derive(resnet50, name=name, seed=seed, scale=scale, model=derive(resnet50.model, **model))

    return Experiment(
        preset="amazon",
        data=DataConfig(source="kaggle", image_size=256, val_fraction=0.15, test_fraction=0.2),
        variants=(
            resnet50,
            other("resnet101", 1, TWO_GPUS, backbone="resnet101"),
            other("efficientnet-b3", 2, TWO_GPUS, backbone="efficientnet_b3"),
            other("resnet50-cbam", 3, ONE_GPU, cbam="last"),
        ),
        folds=5,
        sweep=SweepConfig(reference="resnet50", trials=16, epochs=4, grace_epochs=1, concurrent=4),
    )


def bigearthnet() -> Experiment:
    """BigEarthNet version 2: twelve bands of Sentinel-2, 19 labels, official splits, a pretrained ResNet-50.

    ``data.root`` holds ``metadata.parquet`` and the folder ``BigEarthNet-S2``. The first layer of the
    ImageNet weights is adapted to twelve bands. A cache of all patches takes 166 GB (480,038
    patches * 120 * 120 pixels * 12 bands * 2 bytes): give it with ``--data.max-cache-gb 180``, or patches are
    decoded in every epoch.
    """
    resnet50 = VariantConfig(
        name="resnet50",
        model=ModelConfig(backbone="resnet50", pretrained=True),
        loss=LossConfig(name="bce"),
        augment=AugmentConfig(flips=True, brightness=0.1, contrast=0.1, place="device"),
        optim=OptimConfig(
            epochs=20,
            batch_size=256,
            lr=1e-3,
            weight_decay=0.02,
            warmup_fraction=0.05,
            ema_decay=0.999,
            precision="bfloat16",
        ),
        tta="d4",
        scale=ONE_GPU,
    )
    return Experiment(
        preset="bigearthnet",
        data=DataConfig(
            source="bigearthnet",
            csv="metadata.parquet",
            images="BigEarthNet-S2",
            extension="",
            image_size=120,
            bands=sentinel2_bands(),
        ),
        variants=(resnet50,),
        sweep=SweepConfig(reference="resnet50", trials=0),
    )


PRESETS: dict[str, Callable[[], Experiment]] = {
    "demo": demo,
    "planet32": planet32,
    "planet32-long": planet32_long,
    "planet32-transfer": planet32_transfer,
    "amazon": amazon,
    "bigearthnet": bigearthnet,
}


def preset(name: str) -> Experiment:
    """The experiment of the preset ``name``.

    Raises:
        ConfigError: when no preset has this name.
    """
    if name not in PRESETS:
        raise ConfigError("--preset", "must be a known preset", name, nearest(name, PRESETS))
    return PRESETS[name]()
