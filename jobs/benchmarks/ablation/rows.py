"""Rows of the ablation: a baseline, each technique alone, all techniques together, all but one.

The baseline is the plan's: a ResNet, plain BCE, flips and quarter turns, threshold 0.5. A row is the baseline
with some config fields changed, so all data sets and sizes use the same rows. A setting defines the data, the
backbone of each role and the length of a training.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from canopy.config import AUGMENT_PRESETS, DataConfig, GenerateConfig, ResourcesConfig, VariantConfig
from canopy.errors import ConfigError, nearest

DataName = Literal["generated", "planet32"]
ScaleName = Literal["cpu", "gpu", "tiny"]
Role = Literal["resnet", "efficientnet", "deeper"]
Changes = dict[str, dict[str, Any]]

ENHANCED = AUGMENT_PRESETS["enhanced"]
COLOR = {
    name: getattr(ENHANCED, name) for name in ("brightness", "contrast", "saturation", "hue", "grayscale")
}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: name in files and on the command line.
        title: text in the table.
        effort: effort named in the plan, "" if it names none.
        plan_macro: macro-F1 gain expected by the plan, in percentage points.
        plan_micro: micro-F1 gain expected by the plan, in percentage points.
        changes: fields that differ from the baseline: config section → field → value.
        role: role of its backbone.
        usual: whether the row is trained by default.
        against: name of the row to compare with, or ``best member``.
        of: names of the rows whose predictions it is derived from; empty for a row that is trained.
    """

    name: str
    title: str
    effort: str = ""
    plan_macro: str = ""
    plan_micro: str = ""
    changes: Changes = field(default_factory=dict)
    role: Role = "resnet"
    usual: bool = True
    against: str = "baseline"
    of: tuple[str, ...] = ()


def loss(name: str, **parameters: Any) -> Changes:
    """The change that selects a loss."""
    return {"loss": {"name": name, **parameters}}


TRAINED = (
    Row("baseline", "Baseline: ResNet, BCE, flips, threshold 0.5"),
    Row("weighted_bce", "Class-weighted BCE: √(neg/pos), at most 20", "Low", "+3–5", "−1–2",
        loss("weighted_bce")),
    # The plan's scalar α multiplies the whole loss. AdamW is invariant to that, so α is None.
    Row("focal", "Focal loss, γ 2", "Low", "+5–7", "0–1", loss("focal", gamma=2.0)),
    Row("asymmetric", "Asymmetric loss, γ⁺ 0, γ⁻ 4, clip 0.05", changes=loss("asymmetric")),
    Row("oversampling", "Oversampling, weights share^-½ of the rarest label", "Low", "+2–4", "−1",
        {"sampling": {"name": "weighted"}}),
    Row("efficientnet", "EfficientNet instead of ResNet", "Medium", "+3–6", "+1–2", role="efficientnet"),
    Row("deeper", "Deeper ResNet", "Very low", "+1–3", "0–1", role="deeper"),
    Row("cbam", "CBAM after the last stage", "Medium", "+3–5", "+1–2", {"model": {"cbam": "last"}}),
    Row("mixup", "Mixup, Beta(0.2, 0.2)", "Low", "+1–3", "0–1", {"augment": {"mixup_alpha": 0.2}}),
    Row("cutmix", "CutMix, Beta(1, 1), labels by area", "Low", "+1–2", "0–1",
        {"augment": {"cutmix_alpha": 1.0}}),
    Row("colour", "Enhanced colour augmentation", "Low", "+1–3", "+1–3", {"augment": COLOR}),
    Row("weighted_ratio", "Class-weighted BCE: neg/pos, uncapped (the plan's own)", "Low", "+3–5", "−1–2",
        loss("weighted_bce", weighting="ratio", weight_cap=1e6), usual=False),
    Row("focal_balanced", "Focal loss, γ 2, α from label frequencies",
        changes=loss("focal", gamma=2.0, alpha="frequency"), usual=False),
    Row("distribution_balanced", "Distribution-balanced loss", changes=loss("distribution_balanced"),
        usual=False),
    Row("two_way", "Two-way loss, T 4", changes=loss("two_way"), usual=False),
    Row("logit_adjusted", "Logit-adjusted BCE, τ 1", changes=loss("logit_adjusted"), usual=False),
    Row("label_smoothing", "Label smoothing, 0.05", changes=loss("bce", label_smoothing=0.05), usual=False),
    Row("repeat_factor", "Oversampling by repeat factors (longer epochs)", "Low", "+2–4", "−1",
        {"sampling": {"name": "repeat_factor"}}, usual=False),
    Row("ema", "Moving average of the weights, 0.99", changes={"optim": {"ema_decay": 0.99}}, usual=False),
    Row("drop_path", "Stochastic depth, 0.1", changes={"model": {"drop_path": 0.1}}, usual=False),
    Row("layer_decay", "Layer-wise learning rates, 0.8 (meant for pretrained networks)",
        changes={"optim": {"layer_decay": 0.8}}, usual=False),
    Row("crt", "Head retrained on balanced data, 2 epochs", changes={"optim": {"rebalance_epochs": 2}},
        usual=False),
)  # fmt: skip

COMBINED = ("efficientnet", "cbam", "asymmetric", "oversampling", "mixup", "colour")
"""Techniques in ``all``, chosen before any measurement: one loss, one way to mix, one backbone. CutMix is not
included because labels depend on small objects, the deeper ResNet because EfficientNet is included."""

DERIVED = (
    Row("grid", "Thresholds on the plan's grid, 0.1 to 0.9", "Low", "+1–2", "0–1", of=("baseline",)),
    Row("exact", "Thresholds by exact search", of=("baseline",)),
    Row("shrunk", "Calibrated, thresholds shrunk to the plug-in rule", of=("baseline",)),
    Row("tta", "Eight symmetries averaged at prediction", of=("baseline",)),
    Row("ensemble", "Ensemble: ResNet, deeper ResNet, EfficientNet (against its best member)", "High", "+2–3",
        "+1–2", against="best member", of=("baseline", "deeper", "efficientnet")),
)  # fmt: skip
"""Rows without training, derived from the predictions of others."""
WITHOUT = "all-without-"


def combined(name: str, title: str, techniques: tuple[str, ...], against: str = "baseline") -> Row:
    """A row that combines several techniques."""
    changes: Changes = {}
    role: Role = "resnet"
    for row in TRAINED:
        if row.name in techniques:
            role = row.role if row.role != "resnet" else role
            for section, values in row.changes.items():
                changes[section] = {**changes.get(section, {}), **values}
    return Row(name, title, changes=changes, role=role, against=against)


ALL = combined("all", f"All that combine: {', '.join(COMBINED)}", COMBINED)
LEFT_OUT = tuple(
    combined(
        WITHOUT + name, f"All without {name} (against all)", tuple(c for c in COMBINED if c != name), "all"
    )
    for name in COMBINED
)
ROWS = {row.name: row for row in (*TRAINED, ALL, *LEFT_OUT, *DERIVED)}
USUAL = tuple(row.name for row in (*TRAINED, ALL) if row.usual)
"""The twelve rows that are trained by default."""


@dataclass(frozen=True)
class Setting:
    """Data, networks and budget of an ablation.

    Args:
        data: images and their split.
        baseline: config of the baseline, without its learning rate.
        backbones: timm name by role.
        epochs: number of epochs by role.
        rates: learning rates to test for each backbone.
        parallel: number of concurrent trainings.
    """

    data: DataConfig
    baseline: VariantConfig
    backbones: dict[Role, str]
    epochs: dict[Role, int]
    rates: tuple[float, ...]
    parallel: int = 2

    def variant(self, row: Row, seed: int, rate: float) -> VariantConfig:
        """The complete config of a row that is trained.

        Raises:
            pydantic.ValidationError: when the changes break a rule of the config.
        """
        assert not row.of, row.name
        whole = self.baseline.model_dump()
        own: Changes = {
            "model": {"backbone": self.backbones[row.role]},
            "optim": {"lr": rate, "epochs": self.epochs[row.role]},
        }
        for changes in (own, row.changes):
            for section, values in changes.items():
                whole[section] = {**whole[section], **values}
        return VariantConfig.model_validate({**whole, "name": row.name, "seed": seed})


SMALL: dict[Role, str] = {"resnet": "test_resnet", "efficientnet": "test_efficientnet", "deeper": "resnet10t"}
LARGE: dict[Role, str] = {"resnet": "resnet50", "efficientnet": "efficientnet_b3", "deeper": "resnet101"}


def setting(data: DataName, scale: ScaleName) -> Setting:
    """The setting of a scale: ``cpu`` for two cores, ``gpu`` as in the plan, ``tiny`` for a trial."""
    match scale:
        case "cpu":
            # At equal CPU time, more epochs at 32 px score higher than fewer at 48 or 64 px.
            return Setting(
                small_data(data, 8000, 64),
                baseline({}, {"batch_size": 64}, {}),
                SMALL,
                {"resnet": 16, "efficientnet": 16, "deeper": 3},
                (1.5e-3, 3e-3, 6e-3, 1.2e-2),
            )
        case "gpu":
            return Setting(
                full_data(data),
                baseline(
                    {"head": "mlp", "dropout": 0.5, "input_size": 224},
                    {"batch_size": 128, "precision": "bfloat16"},
                    {"gpus_per_worker": 0.5, "cpus_per_worker": 4, "threads_per_worker": 4},
                ),
                LARGE,
                {"resnet": 15, "efficientnet": 15, "deeper": 15},
                (2.5e-4, 5e-4, 1e-3, 2e-3),
            )
        case "tiny":
            return Setting(
                small_data(data, 200, 32),
                baseline({}, {"batch_size": 32}, {}),
                SMALL,
                {"resnet": 1, "efficientnet": 1, "deeper": 1},
                (3e-3, 6e-3),
            )


def baseline(model: dict[str, Any], optim: dict[str, Any], scale: dict[str, Any]) -> VariantConfig:
    """The baseline: BCE, flips and quarter turns.

    Augmentation runs in the training process, so that its time counts as training time.
    """
    return VariantConfig.model_validate(
        {
            "name": "baseline",
            "model": model,
            "optim": optim,
            "augment": {"flips": True, "place": "device"},
            "scale": ResourcesConfig(cpus_per_worker=0.5).model_dump() | scale,
        }
    )


def small_data(data: DataName, rows: int, size: int) -> DataConfig:
    """A data set of ``rows`` chips, split into 60% train, 15% val and 25% test."""
    if data == "planet32":
        return DataConfig(source="kaggle", image_size=32, limit=rows, val_fraction=0.15, test_fraction=0.25)
    # With Planet's label rates, the rarest labels would have only five positives in the test split.
    chips = GenerateConfig(rows=rows, size=size, min_rate=0.01 if rows >= 2000 else 0.08)
    return DataConfig(
        source="generated", generate=chips, image_size=32, val_fraction=0.15, test_fraction=0.25
    )


def full_data(data: DataName) -> DataConfig:
    """The full data set, at the full size of its chips."""
    if data == "planet32":
        return DataConfig(source="kaggle", image_size=32, val_fraction=0.15, test_fraction=0.2)
    chips = GenerateConfig(rows=40_000, size=256)
    return DataConfig(
        source="generated", generate=chips, image_size=256, val_fraction=0.15, test_fraction=0.2
    )


def find(names: list[str]) -> list[Row]:
    """The rows named ``names``.

    Raises:
        ConfigError: when a name is unknown.
    """
    for name in names:
        if name not in ROWS:
            raise ConfigError("--rows", "must name rows of the ablation", name, nearest(name, ROWS))
    return [ROWS[name] for name in names]
