"""A variant and its sections: LossConfig, SamplingConfig, OptimConfig, ResourcesConfig."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from canopy.config.augment import AUGMENT_PRESETS, AugmentConfig
from canopy.config.distill import DistillConfig
from canopy.config.finetune import FinetuneConfig
from canopy.config.model import ModelConfig
from canopy.config.section import FINGERPRINTED_IF_SET, NOT_FINGERPRINTED, Fraction, Positive, Section
from canopy.errors import ConfigError


class SamplingConfig(Section):
    """Sampling of training chips within an epoch: :mod:`canopy.data.loading.class_balance`."""

    name: Literal["uniform", "repeat_factor", "weighted"] = "uniform"
    """Sampling method. ``uniform``: each chip once; ``repeat_factor``: chips with rare labels repeated (LVIS,
    Gupta et al. 2019), which lengthens the epoch; ``weighted``: as many draws as chips, weighted by label
    rarity."""
    threshold: float = Field(default=0.05, gt=0, le=1)
    """For ``repeat_factor``: share of chips, above 0 and at most 1; chips of a rarer label are repeated
    sqrt(threshold / share) times."""
    power: float = Field(default=0.5, ge=0, le=1)
    """For ``weighted``: a chip's weight is share^-power of its rarest label; 0 (uniform) to 1 (balanced)."""


class LossConfig(Section):
    """The training loss; :mod:`canopy.losses.multilabel` lists the parameters that each loss reads."""

    name: Literal[
        "bce", "weighted_bce", "focal", "asymmetric", "distribution_balanced", "two_way", "logit_adjusted"
    ] = "bce"
    """Name of the loss."""
    gamma: float = Field(default=2.0, ge=0, le=10)
    """For ``focal`` and ``distribution_balanced``: focusing exponent, 0 to 10; 0 turns focusing off."""
    alpha: float | tuple[float, ...] | Literal["frequency"] | None = None
    """For ``focal``: weight of positives, 0 to 1; negatives get 1 - alpha. One number, one per label, or
    ``frequency``: from the label frequencies; None: both weights are 1."""
    gamma_positive: float = Field(default=0.0, ge=0, le=10)
    """For ``asymmetric``: focusing exponent of positives, 0 to 10."""
    gamma_negative: float = Field(default=4.0, ge=0, le=10)
    """For ``asymmetric``: focusing exponent of negatives, 0 to 10."""
    clip: float = Field(default=0.05, ge=0, lt=1)
    """For ``asymmetric``: shift of the probability of negatives, 0 to below 1; 0 turns it off."""
    weighting: Literal["ratio", "sqrt", "effective"] = "sqrt"
    """For ``weighted_bce``: weight of positives: negatives / positives, its square root, or by the effective
    number of samples."""
    weight_cap: float = Field(default=20.0, ge=1)
    """For ``weighted_bce``: largest weight of positives, 1 or more."""
    class_weights: tuple[Positive, ...] | None = None
    """For ``weighted_bce``: weight of positives per label, above 0; None: computed by ``weighting``."""
    tau: float = Field(default=1.0, ge=0)
    """For ``logit_adjusted``: strength of the label prior, 0 or more."""
    temperature: Positive = 4.0
    """For ``two_way``: temperature of the log-sum-exp over positives, above 0."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Label smoothing s, 0 to below 0.5: targets y become y (1 - 2 s) + s."""

    @model_validator(mode="after")
    def _alpha_is_a_fraction(self) -> Self:
        given = self.alpha if isinstance(self.alpha, tuple) else (self.alpha,)
        if any(isinstance(alpha, float) and not 0 <= alpha <= 1 for alpha in given):
            raise ConfigError(
                "loss.alpha",
                "must lie in [0, 1]",
                str(self.alpha),
                "It is the weight of positives, with 1 - alpha for negatives: 0.5 weights both alike.",
            )
        return self

    @model_validator(mode="after")
    def _given_parameters_are_read(self) -> Self:
        for field, reader in (("class_weights", "weighted_bce"), ("alpha", "focal")):
            if getattr(self, field) is not None and self.name != reader:
                raise ConfigError(
                    f"loss.{field}",
                    f"needs loss.name {reader}",
                    repr(self.name),
                    f"Set loss.name to {reader} or leave loss.{field} out.",
                )
        return self


class OptimConfig(Section):
    """AdamW with a one-cycle schedule: linear warm-up, then cosine decay to almost zero."""

    epochs: int = Field(default=6, ge=1)
    """Number of epochs, 1 or more."""
    rebalance_epochs: int = Field(default=0, ge=0)
    """Epochs of a second phase that trains a new classifier on class-balanced chips with the backbone frozen
    (cRT, Kang et al. 2020), 0 or more; 0 skips the phase."""
    batch_size: int = Field(default=64, ge=2)
    """Global batch size in chips, 2 or more: it is divided among the workers."""
    lr: Positive = 2e-3
    """Peak learning rate for the global batch, above 0."""
    backbone_lr_factor: float = Field(default=1.0, ge=0, le=1)
    """Factor on the backbone's learning rate, 0 to 1; 0 freezes the backbone with its batch-norm statistics.
    Attention and head use ``lr`` itself."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor on the learning rate from each backbone layer to the one before it, above 0 and at most 1; 1
    turns it off."""
    weight_decay: float = Field(default=0.02, ge=0)
    """Weight decay of AdamW, 0 or more."""
    warmup_fraction: Fraction = 0.2
    """Share of all steps in the warm-up, 0 to 1."""
    clip_norm: Positive | None = 1.0
    """Maximum norm of the gradients, above 0; None: no clipping."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the exponential moving average (EMA) of the weights, 0 to below 1; 0 turns the EMA off. With
    EMA, the averaged weights are evaluated and saved."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many epochs without a better selection score, 1 or more; None: run all epochs."""
    select_by: Literal["map", "macro_f1"] = "map"
    """Validation score that selects the best epoch (``macro_f1``: at each class's best threshold)."""
    sync_batchnorm: bool = False
    """Compute batch norm over the global batch, across workers; several workers need GPUs."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Numeric precision; ``bfloat16`` runs the network under autocast."""


class ResourcesConfig(Section):
    """Resources of one training; they do not change its result, up to rounding.

    Two exceptions, where each worker sees only its share of the batch: batch norm that is not synchronized
    (``optim.sync_batchnorm``), whose statistics become noisier with more workers; and the half of
    ``loss.name: two_way`` that compares the rows of a batch, which makes fewer comparisons.
    """

    workers: int = Field(default=1, ge=1)
    """Number of DDP processes, 1 or more."""
    min_workers: int | None = Field(default=None, ge=1)
    """Smallest number of workers to continue with when nodes are lost or late, 1 or more; training returns to
    ``workers`` when they arrive. None: wait for all workers."""
    cpus_per_worker: Positive = 0.5
    """CPUs that Ray reserves per worker, above 0; may be fractional."""
    gpus_per_worker: float = Field(default=0.0, ge=0)
    """GPUs that Ray reserves per worker, 0 or more; fractional with one worker only."""
    threads_per_worker: int = Field(default=1, ge=1)
    """Number of torch's CPU threads per worker, 1 or more."""
    compile: bool = False
    """Compile the network with torch.compile: starts minutes later, faster steps on a GPU."""
    autotune: bool = False
    """Let timed steps choose memory format, threads (up to ``threads_per_worker``) and the batches of
    evaluations before the first step; true or false. They change results by rounding, so that the same config
    may give other last digits on another machine; a resumed training keeps the choice."""
    accelerator: str | None = None
    """Name of a custom Ray resource to reserve, 1 per worker, such as one that marks a kind of node."""

    @model_validator(mode="after")
    def _fractional_gpu_needs_one_worker(self) -> Self:
        fractional = self.gpus_per_worker not in {0} and self.gpus_per_worker % 1 != 0
        if fractional and self.workers > 1:
            raise ConfigError(
                "scale.gpus_per_worker",
                "must be a whole number when scale.workers is above 1 (NCCL refuses two ranks on one device)",
                f"{self.gpus_per_worker} with {self.workers} workers",
                "Use one worker or whole GPUs.",
            )
        return self

    @model_validator(mode="after")
    def _autotune_times_plain_networks(self) -> Self:
        if self.autotune and self.compile:
            raise ConfigError(
                "scale.autotune",
                "must be false with scale.compile (timed steps run the network as it is)",
                "both true",
                "Leave one of them out.",
            )
        return self

    @model_validator(mode="after")
    def _min_workers_is_at_most_workers(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ConfigError(
                "scale.min_workers",
                "must be at most scale.workers",
                f"{self.min_workers} and {self.workers}",
                "Lower it, or leave it out.",
            )
        return self

    @property
    def counts(self) -> range:
        """Allowed worker counts of the training."""
        return range(self.min_workers or self.workers, self.workers + 1)


class VariantConfig(Section):
    """One member of the ensemble."""

    RENAMED: ClassVar = {"swept_loss": "swept"}

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")
    """Unique name: 1 to 64 letters, digits and ``_ . + -``, beginning with a letter or digit."""
    model: ModelConfig = ModelConfig()
    """The network."""
    loss: LossConfig = LossConfig()
    """The training loss."""
    sampling: SamplingConfig = SamplingConfig()
    """Sampling of training chips within an epoch."""
    swept: bool | tuple[str, ...] = False
    """Which fields the variant takes from the sweep: true takes all that were swept, false none; a list names
    some of them, such as ``optim.lr``."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation of training chips; in a config file also a name: none, flips, crops, enhanced."""
    optim: OptimConfig = OptimConfig()
    """Optimizer and schedule."""
    finetune: FinetuneConfig = Field(default=FinetuneConfig(), json_schema_extra=FINGERPRINTED_IF_SET)
    """How a training that starts from earlier weights uses them."""
    distill: DistillConfig = Field(default=DistillConfig(), json_schema_extra=FINGERPRINTED_IF_SET)
    """Soft labels from another run's ensemble."""
    tta: Literal["none", "flips", "d4"] = "none"
    """Test-time augmentation of final predictions: mean logits over four flips or all eight symmetries."""
    scale: ResourcesConfig = Field(default=ResourcesConfig(), json_schema_extra=NOT_FINGERPRINTED)
    """Resources of one training."""
    seed: int = Field(default=0, ge=0)
    """Seed of initial weights, batch order and augmentation, 0 or more."""

    @field_validator("augment", mode="before")
    @classmethod
    def _augment_by_name(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        if given not in AUGMENT_PRESETS:
            raise ConfigError(
                "augment",
                "must be a section or the name of an augmentation",
                repr(given),
                f"Known: {', '.join(AUGMENT_PRESETS)}.",
            )
        return AUGMENT_PRESETS[given]

    @model_validator(mode="after")
    def _finetuning_fits_the_training(self) -> Self:
        def refuse(name: str, need: str, got: object, remedy: str) -> ConfigError:
            return ConfigError(f"variant {self.name}: finetune.{name}", need, got, remedy)

        finetune, optim, model = self.finetune, self.optim, self.model
        if finetune.needs_weights is not None and not model.is_transfer:
            need = "needs weights to start from"
            raise refuse(
                finetune.needs_weights, need, "random weights", "Set model.pretrained or model.weights."
            )
        if finetune.has_probe and (model.head == "csra" or model.cbam != "none"):
            got = f"head {model.head}, cbam {model.cbam}"
            remedy = "Use another head and no attention, or finetune.method full."
            need = "needs model.head linear or mlp, and no CBAM"
            raise refuse(f"method {finetune.method}", need, got, remedy)
        for name in ("unfreeze_epochs", "swa_epochs"):
            if getattr(finetune, name) >= optim.epochs and getattr(finetune, name) > 0:
                got = f"{getattr(finetune, name)} and {optim.epochs}"
                raise refuse(name, "must be below optim.epochs", got, "Change one of them.")
        if finetune.lora_rank and (optim.layer_decay != 1 or optim.backbone_lr_factor == 0):
            need = "needs optim.layer_decay 1 and a backbone that is trained"
            got = f"layer_decay {optim.layer_decay}, backbone_lr_factor {optim.backbone_lr_factor}"
            raise refuse("lora_rank", need, got, "Leave out one or the other.")
        if optim.backbone_lr_factor == 0 and (finetune.unfreeze_epochs or finetune.l2_sp or finetune.wise_ft):
            used = "unfreeze_epochs" if finetune.unfreeze_epochs else "l2_sp" if finetune.l2_sp else "wise_ft"
            remedy = "Raise optim.backbone_lr_factor, or leave it out."
            raise refuse(used, "needs a backbone that is trained", "optim.backbone_lr_factor 0", remedy)
        if finetune.input_sizes and (model.input_size is None or len(finetune.input_sizes) > optim.epochs):
            need = "needs model.input_size, and at least as many epochs as sizes"
            got = f"{len(finetune.input_sizes)} sizes, {optim.epochs} epochs, input_size {model.input_size}"
            raise refuse("input_sizes", need, got, "Change one of them.")
        return self

    @model_validator(mode="after")
    def _batch_divides_among_workers(self) -> Self:
        uneven = [count for count in self.scale.counts if self.optim.batch_size % count]
        if uneven:
            each = "" if self.scale.min_workers is None else " and of each number down to scale.min_workers"
            raise ConfigError(
                f"variant {self.name}: optim.batch_size",
                f"must be a multiple of scale.workers{each}",
                f"{self.optim.batch_size} and {uneven[0]}",
                "Change one of them.",
            )
        return self

    @model_validator(mode="after")
    def _sync_batchnorm_has_gpus(self) -> Self:
        if self.optim.sync_batchnorm and self.scale.workers > 1 and not self.scale.gpus_per_worker:
            raise ConfigError(
                f"variant {self.name}: optim.sync_batchnorm",
                "needs GPUs when scale.workers is above 1 (torch synchronizes batch norm on GPUs only)",
                f"{self.scale.workers} workers without GPU",
                "Set scale.gpus_per_worker to 1, use one worker, or a backbone without batch norm.",
            )
        return self
