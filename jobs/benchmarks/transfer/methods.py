"""The compared ways to use pretrained weights, each as a complete variant."""

from __future__ import annotations

from dataclasses import dataclass

from canopy.config import (
    AugmentConfig,
    DataConfig,
    FinetuneConfig,
    ModelConfig,
    OptimConfig,
    ResourcesConfig,
    VariantConfig,
)

METHODS = {
    "scratch": "from scratch",
    "probe": "linear probe",
    "lp_ft": "LP-FT",
    "full": "fine-tuned",
}
"""Methods in the order of the table, with their names in it."""
SHARES = (0.01, 0.1, 1.0)
"""Shares of the training labels."""
EPOCHS = ((0.02, 40), (0.2, 15), (1.0, 6))
"""Epochs by share: up to the first number the second. Fewer chips need more epochs to see as many steps."""


@dataclass(frozen=True)
class Size:
    """What all trainings of a measurement share.

    Args:
        weights: ``model.weights``.
        backbone: timm name of the network that they belong to.
        input_size: side of the input in pixels.
        rows: number of chips of the data set; None takes all.
        epochs: epochs of every training; None takes those of ``EPOCHS``.
        threads: CPU threads of a training.
    """

    weights: str
    backbone: str
    input_size: int
    rows: int | None = None
    epochs: int | None = None
    threads: int = 2


def data_config(size: Size, root: str) -> DataConfig:
    """The real chips at 32 px with the split of the ``planet32`` presets."""
    return DataConfig(
        source="kaggle", root=root, image_size=32, val_fraction=0.15, test_fraction=0.2, limit=size.rows
    )


def variant_of(method: str, share: float, seed: int, size: Size) -> VariantConfig:
    """The variant of a method at a share of the labels."""
    epochs = size.epochs or next(epochs for limit, epochs in EPOCHS if share <= limit)
    pretrained = method != "scratch"
    return VariantConfig(
        name=method,
        model=ModelConfig(
            backbone=size.backbone, weights=size.weights if pretrained else None, input_size=size.input_size
        ),
        augment=AugmentConfig(flips=True, crop_padding=2),
        optim=OptimConfig(
            epochs=epochs,
            batch_size=64 if share > 0.02 else 32,
            lr=1e-3 if pretrained else 3e-3,
            backbone_lr_factor=0.5 if pretrained else 1.0,
            weight_decay=0.05,
            ema_decay=0.998,
        ),
        finetune=FinetuneConfig(
            method="full" if method == "scratch" else method,  # type: ignore[arg-type]
            probe_views=1 if share > 0.2 else 4,
            probe_lr=3e-3 if method in {"probe", "lp_ft"} else None,
        ),
        seed=seed,
        scale=ResourcesConfig(cpus_per_worker=1, threads_per_worker=size.threads),
    )
