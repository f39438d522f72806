"""One member of the fleet: network, loss, augmentation, optimizer, scale."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from canopy.config.augment import AUGMENT_PRESETS, AugmentConfig
from canopy.config.section import PLACE, Fraction, Positive, Section


class SamplingConfig(Section):
    """Which training chips an epoch shows how often: :mod:`canopy.data.loading.class_balance`."""

    name: Literal["uniform", "repeat_factor", "weighted"] = "uniform"
    """Each chip once; chips with rare labels repeated (LVIS, Gupta et al. 2019), which lengthens the epoch;
    or as many draws as there are chips, in proportion to label rarity."""
    threshold: float = Field(default=0.05, gt=0, le=1)
    """Repeat factor: labels rarer than this share of the chips are repeated, sqrt(threshold / share)
    times."""
    power: float = Field(default=0.5, ge=0, le=1)
    """Weighted: a chip weighs share^-power of its rarest label; 0 is uniform, 1 class-balanced."""


class LossConfig(Section):
    """The training loss. Which of the parameters a loss reads stands in :mod:`canopy.losses.multilabel`."""

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

    @model_validator(mode="after")
    def _what_is_given_is_read(self) -> Self:
        for field, reader in (("class_weights", "weighted_bce"), ("alpha", "focal")):
            if getattr(self, field) is not None and self.name != reader:
                raise ValueError(
                    f"loss.{field} needs loss.name {reader}. Got: {self.name!r}. "
                    f"Set loss.name to {reader} or leave loss.{field} out."
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
                f"model.weights must be unset while model.pretrained is true. Got: {self.weights!r}. "
                "Drop one."
            )
        return self


class OptimConfig(Section):
    """AdamW with a one-cycle schedule: linear warm-up, then cosine to nearly zero."""

    epochs: int = Field(default=6, ge=1)
    rebalance_epochs: int = Field(default=0, ge=0)
    """Epochs of a second phase that trains a fresh classifier on class-balanced chips over the frozen
    backbone (cRT, Kang et al. 2020); 0 leaves it out."""
    batch_size: int = Field(default=64, ge=2)
    """Global: it is divided over the workers, so that it means the same for any number of them."""
    lr: Positive = 2e-3
    """Peak learning rate, for the global batch."""
    backbone_lr_factor: float = Field(default=1.0, gt=0, le=1)
    """The backbone learns at ``lr`` times this, attention and head at ``lr``."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each layer of the backbone learns at this times the rate of the layer after it; 1 turns it off."""
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
    sync_batchnorm: bool = False
    """Batch norm over the global batch in place of each worker's share of it; with several workers on GPUs
    only."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs the network under autocast."""


class ScaleConfig(Section):
    """With how much: none of this changes what a variant learns, up to rounding.

    Two exceptions, in which each worker sees its share of the batch alone: batch norm where it is not
    synchronised (``optim.sync_batchnorm``), so that more workers mean noisier statistics; and the half of
    ``loss.name: two_way`` that compares the rows of a batch, so that more workers mean fewer comparisons.
    """

    workers: int = Field(default=1, ge=1)
    """DDP processes."""
    min_workers: int | None = Field(default=None, ge=1)
    """Go on with as few as this when nodes are lost or do not come, and with ``workers`` again when they do;
    None waits for all of them."""
    cpus_per_worker: Positive = 0.5
    gpus_per_worker: float = Field(default=0.0, ge=0)
    threads_per_worker: int = Field(default=1, ge=1)
    """torch's CPU threads in each worker."""
    compile: bool = False
    """Run the network through torch.compile: minutes at the start for faster steps on a GPU."""
    accelerator: str | None = None
    """Also ask for 1 of this custom Ray resource per worker, e.g. to pin a kind of node."""

    @model_validator(mode="after")
    def _a_fraction_of_a_gpu_is_one_worker(self) -> Self:
        fractional = self.gpus_per_worker not in {0} and self.gpus_per_worker % 1 != 0
        if fractional and self.workers > 1:
            raise ValueError(
                "scale.gpus_per_worker must be a whole number when scale.workers is above 1 (NCCL refuses "
                f"two ranks on one device). Got: {self.gpus_per_worker} with {self.workers} workers. "
                "Use one worker or whole GPUs."
            )
        return self

    @model_validator(mode="after")
    def _fewest_and_most(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(
                "scale.min_workers must be at most scale.workers. "
                f"Got: {self.min_workers} and {self.workers}. Lower it, or leave it out."
            )
        return self

    @property
    def counts(self) -> range:
        """The numbers of workers that a training may run with."""
        return range(self.min_workers or self.workers, self.workers + 1)


class VariantConfig(Section):
    """One member of the fleet."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    sampling: SamplingConfig = SamplingConfig()
    swept_loss: bool = False
    """Take the focal parameters that the sweep found, in place of ``loss.gamma`` and ``loss.alpha``."""
    augment: AugmentConfig = AugmentConfig()
    """In a file also a name: none, flips, crops, enhanced."""
    optim: OptimConfig = OptimConfig()
    tta: Literal["none", "flips", "d4"] = "none"
    """Final predictions average the logits over the chip's four flips or its eight symmetries."""
    scale: ScaleConfig = Field(default=ScaleConfig(), json_schema_extra=PLACE)
    seed: int = Field(default=0, ge=0)

    @field_validator("augment", mode="before")
    @classmethod
    def _augment_by_name(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        if given not in AUGMENT_PRESETS:
            raise ValueError(
                f"augment must be a section or the name of an augmentation. Got: {given!r}. "
                f"Known: {', '.join(AUGMENT_PRESETS)}."
            )
        return AUGMENT_PRESETS[given]

    @model_validator(mode="after")
    def _rules_across_sections(self) -> Self:
        if self.swept_loss and self.loss.name != "focal":
            raise ValueError(
                f"variant {self.name}: swept_loss needs loss.name focal. Got: {self.loss.name!r}. "
                "Set loss.name to focal or swept_loss to false."
            )
        uneven = [count for count in self.scale.counts if self.optim.batch_size % count]
        if uneven:
            each = "" if self.scale.min_workers is None else " and of each number down to scale.min_workers"
            raise ValueError(
                f"variant {self.name}: optim.batch_size must be a multiple of scale.workers{each}. "
                f"Got: {self.optim.batch_size} and {uneven[0]}. Change one of them."
            )
        if self.optim.sync_batchnorm and self.scale.workers > 1 and not self.scale.gpus_per_worker:
            raise ValueError(
                f"variant {self.name}: optim.sync_batchnorm needs GPUs when scale.workers is above 1 (torch "
                f"synchronises batch norm on GPUs only). Got: {self.scale.workers} workers without GPU. Set "
                "scale.gpus_per_worker to 1, use one worker, or a backbone without batch norm."
            )
        return self
