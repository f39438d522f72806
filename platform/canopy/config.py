"""One experiment is one frozen, typed config.

Sections are pydantic models: unknown names are refused, ranges stand in ``Field``, rules across
fields in validators. ``model_copy(update=…)`` does not validate, so derive with :func:`derive`.
What a section says about *where* and *with how much* (paths, workers, logging) is marked
``PLACE``: it never enters a fingerprint, so moving a run or giving it more workers redoes nothing.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

PLACE: dict[str, Any] = {"place": True}
"""``json_schema_extra`` of a field that says where or with how much, not what."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """Base of every section: frozen, strict about names, NaN and Inf refused."""

    # Defaults are validated too: 0 and 0.0 would give one config two fingerprints.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class GenerateConfig(Section):
    """The built-in generator of Amazon-like chips (used when ``data.source`` is ``generated``)."""

    rows: int = Field(default=6000, ge=64)
    """Number of chips."""
    size: int = Field(default=64, ge=32, le=512)
    """Height and width of a chip in pixels."""
    seed: int = Field(default=0, ge=0)
    """Everything drawn follows from it."""
    min_rate: float = Field(default=0.0, ge=0, le=0.2)
    """Labels rarer than this share of the chips are raised to it; 0 keeps Planet's own rates."""
    miss_rate: float = Field(default=0.04, ge=0, le=0.5)
    """Chance that a label that is there is not written down; for the weather, that another one is."""
    spurious_rate: float = Field(default=0.002, ge=0, le=0.05)
    """Chance that a label that is not there is written down, for a label of average frequency."""
    cmyk_fraction: Fraction = 0.1
    """Share of the chips written as 4-component (Adobe) CMYK JPEGs, as real exports contain them."""


class TableConfig(Section):
    """What the columns of the label table are called when ``data.source`` is ``table``."""

    id: str = "image_name"
    """Unique name of the image."""
    path: str | None = None
    """Its file: relative to ``data.images``, absolute, or a URI; None: the id with ``data.extension``."""
    labels: str = "tags"
    """The names of the image's labels (in Parquet also a list column)."""
    separator: str = " "
    """Between names in a cell; empty where a cell is one name."""
    one_hot: tuple[str, ...] = ()
    """Columns of zeros and ones, one per label, instead of ``labels``; ``*``: all columns not named here."""
    split: str | None = None
    """Own splits: train, val, test, or empty where the row may be dealt out."""
    group: str | None = None
    """Rows with one value stay on one side of every split (a scene, a flight)."""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """Between the cells of a CSV."""


class DataConfig(Section):
    """The labelled images and how they are split."""

    source: Literal["generated", "kaggle", "table", "folders", "ucmerced"] = "generated"
    """``generated``: the built-in chips; ``kaggle``: a CSV of names and tags beside a folder of images;
    ``table``: any CSV or Parquet table; ``folders``: a folder per label set; ``ucmerced``: UC Merced."""
    root: str | None = Field(default=None, json_schema_extra=PLACE)
    """Directory or URI of the images; for generated chips, where to keep them (default: in the run)."""
    csv: str = "train_v2.csv"
    """The label table, relative to the root: columns ``image_name`` and ``tags`` (separated by spaces)."""
    images: str = "train-jpg"
    """Folder of the images, relative to the root."""
    extension: str = ".jpg"
    """Appended to ``image_name``."""
    image_size: int = Field(default=64, ge=8, le=1024)
    """Images are decoded to this height and width (resized when they differ)."""
    val_fraction: Fraction = 0.15
    """Share of the rows that serves selection: sweep, early stopping, checkpoints."""
    test_fraction: Fraction = 0.2
    """Share of the rows that is read once, at the end."""
    table: TableConfig = TableConfig()
    labels: tuple[str, ...] = ()
    """All label names in their order, any other refused; empty: those that occur, alphabetically."""
    max_bad_fraction: Fraction = 0.0
    """Unreadable images up to this share are named and skipped; more of them stop the run."""
    limit: int | None = Field(default=None, ge=64)
    """Use only this many rows (drawn by seed), for a quick look at a large set."""
    seed: int = Field(default=0, ge=0)
    """Of the splits and of ``limit``."""
    generate: GenerateConfig = GenerateConfig()

    @model_validator(mode="after")
    def _parts_leave_training_rows(self) -> Self:
        if not self.val_fraction or not self.test_fraction or self.val_fraction + self.test_fraction > 0.8:
            raise ValueError(
                "data.val_fraction and data.test_fraction must each be above 0 and together at most 0.8. "
                f"Got: {self.val_fraction} and {self.test_fraction}. Lower them."
            )
        return self


class AugmentConfig(Section):
    """What happens to a training chip; each parameter is drawn per image."""

    flips: bool = True
    """The eight symmetries of the square (an aerial image has no up)."""
    crop_padding: int = Field(default=0, ge=0, le=64)
    """Reflect-pad by this many pixels, then crop the original size at random."""
    rotate_degrees: float = Field(default=0, ge=0, le=180)
    """Rotation by a uniform angle in ± this, reflected at the border."""
    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    saturation: Fraction = 0.0
    hue: float = Field(default=0, ge=0, le=0.5)
    """Jitter, as in torchvision's ColorJitter: factors in [1 - x, 1 + x], hue shift in [-x, x] turns."""
    greyscale: Fraction = 0.0
    """Chance of losing all colour."""
    blur: Fraction = 0.0
    """Chance of a 3x3 gaussian blur with sigma in [0.1, 2]."""
    mixup_alpha: float = Field(default=0, ge=0)
    """Mixup's Beta(a, a); 0 turns it off."""
    cutmix_alpha: float = Field(default=0, ge=0)
    """CutMix's Beta(a, a); 0 turns it off."""
    cutmix_labels: Literal["area", "union"] = "area"
    """Labels of the two chips weighted by their areas, or both kept whole."""
    place: Literal["data", "device"] = Field(default="data", json_schema_extra=PLACE)
    """Run in the Ray Data stream or on the training device; for one seed both give equal batches."""


class LossConfig(Section):
    """The training loss. Which of the parameters a loss reads stands in :mod:`canopy.losses`."""

    name: Literal[
        "bce", "weighted_bce", "focal", "asymmetric", "distribution_balanced", "two_way", "logit_adjusted"
    ] = "bce"
    gamma: float = Field(default=2.0, ge=0, le=10)
    """Focal: how strongly easy examples are set back; 0 leaves BCE."""
    alpha: float | tuple[float, ...] | Literal["frequency"] | None = None
    """Focal: weight of positives, 1 - alpha that of negatives; one for all, one per label, or from the
    label frequencies; None leaves both at 1."""
    gamma_positive: float = Field(default=0.0, ge=0, le=10)
    gamma_negative: float = Field(default=4.0, ge=0, le=10)
    clip: float = Field(default=0.05, ge=0, lt=1)
    """Asymmetric loss: focusing of positives and negatives, and the shift of easy negatives."""
    weighting: Literal["ratio", "sqrt", "effective"] = "sqrt"
    """Weighted BCE: positives weigh neg/pos, its square root, or by the effective number of samples."""
    weight_cap: float = Field(default=20.0, ge=1)
    """No positive weighs more than this."""
    class_weights: tuple[Positive, ...] | None = None
    """Weighted BCE: weights of the positives, one per label, in place of computed ones."""
    tau: float = Field(default=1.0, ge=0)
    """Logit adjustment: strength of the label prior."""
    temperature: Positive = 4.0
    """Two-way loss: temperature of its log-sum-exp for positives."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Targets become y (1 - 2 s) + s."""

    @model_validator(mode="after")
    def _alpha_is_a_share(self) -> Self:
        given = self.alpha if isinstance(self.alpha, tuple) else (self.alpha,)
        if any(isinstance(alpha, float) and not 0 <= alpha <= 1 for alpha in given):
            raise ValueError(
                f"loss.alpha must lie in [0, 1]. Got: {self.alpha}. It is the weight of positives against "
                "1 - alpha for negatives: 0.5 weighs both alike."
            )
        return self


class ModelConfig(Section):
    """The network: a backbone by its timm name, attention, a head."""

    backbone: str = "resnet10t"
    """Any timm model that gives feature maps."""
    cbam: Literal["none", "last", "all"] = "none"
    """CBAM attention after the last stage or after every stage."""
    head: Literal["linear", "mlp", "csra"] = "linear"
    """Linear; dropout-512-ReLU-dropout-classes; class-specific residual attention."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Before every linear layer of the head."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Stochastic depth, where the backbone has it."""
    pretrained: bool = False
    """timm's default weights, from the hub."""
    weights: str | None = None
    """Path or URI of a safetensors file with backbone weights of your own, instead of timm's."""
    input_size: int | None = Field(default=None, ge=8, le=1024)
    """Chips are enlarged or shrunk to this on the training device; None keeps ``data.image_size``."""

    @model_validator(mode="after")
    def _one_origin_of_weights(self) -> Self:
        if self.pretrained and self.weights is not None:
            raise ValueError(
                f"model.weights must be unset while model.pretrained is true. Got: {self.weights!r}. Drop one."
            )
        return self


class OptimConfig(Section):
    """AdamW with a one-cycle schedule: linear warm-up, then cosine to nearly zero."""

    epochs: int = Field(default=6, ge=1)
    batch_size: int = Field(default=64, ge=2)
    """Global: it is divided over the workers, so that it means the same for any number of them."""
    lr: Positive = 2e-3
    """Peak learning rate, for the global batch."""
    weight_decay: float = Field(default=0.02, ge=0)
    warmup_fraction: Fraction = 0.2
    """Share of all steps spent warming up."""
    clip_norm: Positive | None = 1.0
    """Gradients are scaled down to this norm."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Evaluate and keep an exponential moving average of the weights; 0 turns it off."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many epochs without a better selection score; None runs all epochs."""
    select_by: Literal["map", "macro_f1"] = "map"
    """The validation score that chooses the checkpoint (macro_f1: at each class's best threshold)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs the network under autocast."""


class ScaleConfig(Section):
    """With how much: none of this changes what a variant learns, up to rounding."""

    workers: int = Field(default=1, ge=1)
    """DDP processes."""
    cpus_per_worker: Positive = 0.5
    gpus_per_worker: float = Field(default=0.0, ge=0)
    threads_per_worker: int = Field(default=1, ge=1)
    """torch's CPU threads in each worker."""
    accelerator: str | None = None
    """Also ask for 1 of this custom Ray resource per worker, e.g. to pin a kind of node."""

    @model_validator(mode="after")
    def _a_fraction_of_a_gpu_is_one_worker(self) -> Self:
        fractional = self.gpus_per_worker not in {0} and self.gpus_per_worker % 1 != 0
        if fractional and self.workers > 1:
            raise ValueError(
                "scale.gpus_per_worker must be a whole number when scale.workers is above 1 (NCCL refuses two "
                f"ranks on one device). Got: {self.gpus_per_worker} with {self.workers} workers. "
                "Use one worker or whole GPUs."
            )
        return self


class VariantConfig(Section):
    """One member of the fleet."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    swept_loss: bool = False
    """Take the focal parameters that the sweep found, in place of ``loss.gamma`` and ``loss.alpha``."""
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig = OptimConfig()
    scale: ScaleConfig = Field(default=ScaleConfig(), json_schema_extra=PLACE)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _rules_across_sections(self) -> Self:
        if self.swept_loss and self.loss.name != "focal":
            raise ValueError(
                f"variant {self.name}: swept_loss needs loss.name focal. Got: {self.loss.name!r}. "
                "Set loss.name to focal or swept_loss to false."
            )
        if self.optim.batch_size % self.scale.workers:
            raise ValueError(
                f"variant {self.name}: optim.batch_size must be a multiple of scale.workers. "
                f"Got: {self.optim.batch_size} and {self.scale.workers}. Change one of them."
            )
        return self


class SweepConfig(Section):
    """Ray Tune over the focal parameters of one reference variant, with early stopping (ASHA)."""

    trials: int = Field(default=6, ge=0)
    """How many settings to try; 0 skips the sweep."""
    reference: str | None = None
    """Name of the variant to sweep; None takes the first that wants swept parameters."""
    epochs: int = Field(default=4, ge=1)
    """Longest trial."""
    grace_epochs: int = Field(default=1, ge=1)
    """No trial is stopped before."""
    reduction_factor: int = Field(default=2, ge=2)
    """At each rung of ASHA one trial in this many goes on."""
    rows: int | None = Field(default=None, ge=64)
    """Train each trial on this many rows; None takes all."""
    gamma: tuple[float, float] = (0.0, 4.0)
    """Range of the focal gamma."""
    alpha: tuple[float, float] = (0.25, 0.75)
    """Range of the focal alpha."""
    seed: int = Field(default=0, ge=0)
    concurrent: int = Field(default=2, ge=1, json_schema_extra=PLACE)
    """Trials at the same time."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name, (low, high), top in (("gamma", self.gamma, 10.0), ("alpha", self.alpha, 1.0)):
            if not 0 <= low <= high <= top:
                raise ValueError(
                    f"sweep.{name} must be a range within [0, {top:g}], low end first. Got: {low} {high}. "
                    "Give two numbers in order."
                )
        return self


class EnsembleConfig(Section):
    """How the members' probabilities become one decision; ``auto`` is chosen by nested cross-fitting."""

    objective: Literal["mixed", "macro_f1", "micro_f1", "f2", "cost"] = "mixed"
    """What thresholds and the choice aim at: macro-F1 and micro-F1 together, one of them, Kaggle's per-image
    F2, or least cost."""
    micro_weight: Fraction = 0.6
    """Mixed: the share of micro-F1, the rest is macro-F1; 0 with a floor is macro-F1 above the floor."""
    micro_floor: Fraction | None = None
    """Mixed: lowest micro-F1 allowed; where it is out of reach, micro-F1 is maximised."""
    costs: dict[str, tuple[float, float]] = {}
    """Cost: by label, the cost of a false alarm and that of a miss; labels not named cost 1 and 1."""
    calibration: Literal["auto", "none", "temperature", "platt", "beta", "isotonic"] = "auto"
    """Of each member, per class."""
    combination: Literal[
        "auto",
        "best_single",
        "mean",
        "rank_mean",
        "geometric_mean",
        "greedy",
        "simplex",
        "per_class",
        "logistic",
        "logistic_two_level",
        "ridge_two_level",
    ] = "auto"
    """How calibrated members become one."""
    thresholds: Literal["half", "global", "exact", "shrunk", "plug_in"] = "shrunk"
    """0.5; one for all labels; exact per label; exact shrunk to the plug-in rule; the plug-in rule."""
    exclusive: tuple[str, ...] = ()
    """Groups of labels of which each image has exactly one, e.g. ``clear,partly_cloudy,haze,cloudy``."""
    folds: int = Field(default=5, ge=3, le=20)
    """Of the cross-fitting."""
    bags: int = Field(default=5, ge=1, le=100)
    """Of the greedy selection."""
    search_rows: int = Field(default=16384, ge=256)
    """Candidates are compared on no more rows than this; the winner is refitted on eight times as many, its
    thresholds on all rows, exactly."""
    bootstrap: int = Field(default=1000, ge=100)
    """Resamples behind each interval."""
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _rules_across_fields(self) -> Self:
        if self.micro_floor is not None and self.objective != "mixed":
            raise ValueError(
                "ensemble.micro_floor needs ensemble.objective mixed. "
                f"Got: {self.objective!r}. Set the objective to mixed or drop the floor."
            )
        for label, costs in self.costs.items():
            if min(costs) < 0 or max(costs) <= 0:
                raise ValueError(
                    f"ensemble.costs of {label} must be two numbers of at least 0, not both 0. Got: {costs}. "
                    "Give the cost of a false alarm and of a miss."
                )
        return self


class Experiment(Section):
    """Everything that one run of the pipeline depends on."""

    preset: str = "custom"
    """The named experiment to start from (demo, planet32); it also names the default run directory. When it
    is not given: the config of an existing ``--run-dir``, else demo."""
    data: DataConfig = DataConfig()
    variants: tuple[VariantConfig, ...] = Field(min_length=1)
    folds: int = Field(default=1, ge=1, le=20)
    """Above 1, each variant is trained once per fold and gives out-of-fold probabilities."""
    sweep: SweepConfig = SweepConfig()
    ensemble: EnsembleConfig = EnsembleConfig()
    capacity_timeout_s: float = Field(default=1800, gt=0, json_schema_extra=PLACE)
    """How long to wait for nodes that the autoscaler is bringing."""
    max_failures: int = Field(default=2, ge=0, json_schema_extra=PLACE)
    """Restarts of one variant's training before it counts as failed."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [variant.name for variant in self.variants]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"variants must have distinct names. Got: {name!r} twice. Rename one.")
        if self.sweep.reference is not None and self.sweep.reference not in names:
            raise ValueError(
                f"sweep.reference must name a variant. Got: {self.sweep.reference!r}. Known: {', '.join(names)}."
            )
        return self

    @property
    def sweep_reference(self) -> VariantConfig | None:
        """The variant that the sweep trains; None when no variant wants swept parameters."""
        if self.sweep.trials == 0 or not any(variant.swept_loss for variant in self.variants):
            return None
        if self.sweep.reference is not None:
            return next(v for v in self.variants if v.name == self.sweep.reference)
        return next(v for v in self.variants if v.swept_loss)


SectionT = TypeVar("SectionT", bound=Section)


def derive(section: SectionT, **changes: Any) -> SectionT:
    """A validated copy of ``section`` with fields replaced (``model_copy`` would not validate).

    Raises:
        pydantic.ValidationError: when a change breaks a rule of the section.
    """
    return type(section).model_validate({**section.model_dump(), **changes})


def essence(section: Section) -> dict[str, Any]:
    """What ``section`` says, without anything marked ``PLACE``: the part that fingerprints cover."""
    out: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        if field.json_schema_extra == PLACE:
            continue
        value = getattr(section, name)
        if isinstance(value, Section):
            out[name] = essence(value)
        elif isinstance(value, tuple):
            out[name] = [essence(v) if isinstance(v, Section) else v for v in value]
        else:
            out[name] = value
    return out


def fingerprint(*parts: object) -> str:
    """64 hex digits that change exactly when one of the JSON-able ``parts`` (or sections) does."""
    plain = [essence(part) if isinstance(part, Section) else part for part in parts]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
