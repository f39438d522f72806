"""FinetuneConfig: how a training that starts from earlier weights uses them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from canopy.config.section import FINGERPRINTED_IF_SET, Positive, Section
from canopy.errors import ConfigError


class FinetuneConfig(Section):
    """How to use the weights of ``model.pretrained`` or ``model.weights``. Default: train everything."""

    method: Literal["full", "probe", "lp_ft"] = "full"
    """``full``: train the whole network; ``probe``: train the head alone on features that are computed once;
    ``lp_ft``: the probe first, then the whole network (Kumar et al. 2022)."""
    probe_epochs: int = Field(default=20, ge=1)
    """For ``probe`` and ``lp_ft``: epochs of the probe, 1 or more; each takes about a second."""
    probe_views: int = Field(default=2, ge=1, le=64)
    """For ``probe`` and ``lp_ft``: augmented views of each chip whose features are kept, 1 to 64."""
    probe_lr: Positive | None = None
    """For ``probe`` and ``lp_ft``: peak learning rate of the probe, above 0; None: ``optim.lr``."""
    unfreeze_epochs: int = Field(default=0, ge=0)
    """Gradual unfreezing (Howard and Ruder 2018): epochs until the first layer is trained, 0 or more; in the
    first epoch only the head is. 0 trains all layers from the start."""
    batch_norm: Literal["train", "frozen", "reestimated"] = "train"
    """Batch-norm statistics of the backbone: ``train``: as usual; ``frozen``: those of the weights;
    ``reestimated``: measured on the training chips before the first step, then frozen."""
    l2_sp: float = Field(default=0.0, ge=0)
    """L2-SP (Li et al. 2018): decay of the backbone towards its first weights, instead of ``weight_decay``
    towards 0; 0 or more, 0 turns it off."""
    wise_ft: bool = False
    """WiSE-FT (Wortsman et al. 2022): at the end, mix the first and the final weights; the share is that
    of 0.1, 0.2 … 1 with the best validation score."""
    input_sizes: tuple[Annotated[int, Field(ge=8, le=1024)], ...] = ()
    """Progressive input size: sides in pixels, 8 to 1024, that the epochs are divided among, in this order.
    Evaluation always uses ``model.input_size``. Empty: that size throughout."""
    swa_epochs: int = Field(default=0, ge=0)
    """Stochastic weight averaging (Izmailov et al. 2018): the mean of the weights after each of the last
    epochs competes with the best epoch; number of those epochs, 0 or more, 0 turns it off."""
    swa_lr: float = Field(default=0.1, gt=0, le=1)
    """For ``swa_epochs``: constant rate of the averaged epochs, as a share of the peak, above 0 to 1."""

    lora_rank: int = Field(default=0, ge=0, le=256, json_schema_extra=FINGERPRINTED_IF_SET)
    """LoRA (Hu et al. 2022): the weights of the backbone's linear layers stay, and to each a product of two
    matrices of this rank is added and trained; 1 to 256, 0 turns it off. Needs the extra ``lora``."""
    lora_alpha: int = Field(default=16, ge=1, json_schema_extra=FINGERPRINTED_IF_SET)
    """For ``lora_rank``: the product is scaled by this over the rank; 1 or more."""

    @model_validator(mode="after")
    def _lora_leaves_the_weights_alone(self) -> Self:
        given = {
            "unfreeze_epochs": self.unfreeze_epochs,
            "l2_sp": self.l2_sp,
            "wise_ft": self.wise_ft,
            "swa_epochs": self.swa_epochs,
        }
        used = next((name for name, value in given.items() if value), None)
        if self.lora_rank and used is not None:
            need = "must be off with finetune.lora_rank, which leaves the backbone's own weights as they are"
            raise ConfigError(f"finetune.{used}", need, given[used], "Leave one of them out.")
        return self

    @model_validator(mode="after")
    def _a_probe_leaves_the_backbone_alone(self) -> Self:
        given = {
            "unfreeze_epochs": self.unfreeze_epochs,
            "l2_sp": self.l2_sp,
            "wise_ft": self.wise_ft,
            "input_sizes": self.input_sizes,
            "swa_epochs": self.swa_epochs,
            "lora_rank": self.lora_rank,
        }
        used = next((name for name, value in given.items() if value), None)
        if self.method == "probe" and used is not None:
            raise ConfigError(
                f"finetune.{used}",
                "needs a finetune.method that trains the backbone",
                "probe",
                "Set finetune.method to lp_ft or full, or leave it out.",
            )
        return self

    @property
    def has_probe(self) -> bool:
        """Whether the head is trained alone at first."""
        return self.method != "full"

    @property
    def needs_weights(self) -> str | None:
        """The first option that means nothing for a network that starts from random weights; None without."""
        if self.method != "full":
            return f"method {self.method}"
        given = {
            "unfreeze_epochs": self.unfreeze_epochs > 0,
            f"batch_norm {self.batch_norm}": self.batch_norm != "train",
            "l2_sp": self.l2_sp > 0,
            "wise_ft": self.wise_ft,
            "lora_rank": self.lora_rank > 0,
        }
        return next((name for name, used in given.items() if used), None)
