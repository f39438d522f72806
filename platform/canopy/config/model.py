"""ModelConfig: the network, where its weights come from, and the images that the weights expect."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from canopy.config.section import FINGERPRINTED_IF_SET, Positive, Section, derive
from canopy.errors import ConfigError, refuse_credentials

Triple = tuple[float, float, float]


class ModelConfig(Section):
    """The network: a timm backbone, attention, a classification head."""

    backbone: str = "resnet10t"
    """Name of a timm model that returns feature maps."""
    cbam: Literal["none", "last", "all"] = "none"
    """CBAM attention: none, after the last stage, or after every stage."""
    head: Literal["linear", "mlp", "csra"] = "linear"
    """Classification head. ``linear``: one layer; ``mlp``: dropout, 512 units, ReLU, dropout, one layer;
    ``csra``: class-specific residual attention."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout rate before every linear layer of the head, 0 to below 1."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Stochastic depth rate of the backbone, 0 to below 1; the backbone must support it."""
    pretrained: bool = False
    """Start from timm's default weights, downloaded from the hub."""
    weights: str | None = None
    """Backbone weights to start from: path or URI of a safetensors file or a plain .pth file,
    ``hf-hub:NAME``, ``local-dir:PATH``, or ``run:PATH#VARIANT`` (``@FOLD`` optional) of another run;
    ``#sha256=HEX`` may follow. None: ``pretrained`` or random weights."""
    weights_sha256: str | None = Field(
        default=None, pattern=r"^[0-9a-fA-F]{64}$", json_schema_extra=FINGERPRINTED_IF_SET
    )
    """SHA-256 that the file of ``weights`` must have, 64 hexadecimal digits; None: not checked."""
    mean: Triple | None = Field(default=None, json_schema_extra=FINGERPRINTED_IF_SET)
    """Mean per band that the weights expect the input to be normalized by, in their band order and value
    scale; None: what comes with the weights."""
    std: tuple[Positive, Positive, Positive] | None = Field(
        default=None, json_schema_extra=FINGERPRINTED_IF_SET
    )
    """Standard deviation per band that goes with ``mean``, above 0; None: what comes with the weights."""
    value_scale: Positive | None = Field(default=None, json_schema_extra=FINGERPRINTED_IF_SET)
    """Largest pixel value in the images that the weights expect, before ``mean`` and ``std``, such as 1 or
    255; None: what comes with the weights, else 1."""
    band_order: Literal["rgb", "bgr"] | None = Field(default=None, json_schema_extra=FINGERPRINTED_IF_SET)
    """Order of the bands that the weights expect; None: what comes with the weights, else ``rgb``."""
    input_size: int | None = Field(default=None, ge=8, le=1024)
    """Chips are resized to this side on the training device, 8 to 1024 pixels; None: not resized."""

    @model_validator(mode="after")
    def _weights_have_one_source(self) -> Self:
        if self.weights is not None:
            refuse_credentials("model.weights", self.weights)
        if self.pretrained and self.weights is not None:
            raise ConfigError(
                "model.weights",
                "must be unset while model.pretrained is true",
                repr(self.weights),
                "Drop one.",
            )
        if self.weights_sha256 is not None and self.weights is None:
            raise ConfigError(
                "model.weights_sha256",
                "needs model.weights",
                self.weights_sha256,
                "Set model.weights, or leave the hash out.",
            )
        return self

    @model_validator(mode="after")
    def _statistics_are_complete(self) -> Self:
        # Mean and deviation have a unit and an order: stated alone, each of the four could be misread.
        both = self.mean is not None and self.std is not None
        if not both and (self.mean, self.std, self.value_scale, self.band_order) != (None, None, None, None):
            raise ConfigError(
                "model.mean and model.std",
                "must be set together, and with model.value_scale or model.band_order",
                f"{self.mean} and {self.std}",
                "Set both, or leave out all four.",
            )
        return self

    @property
    def is_transfer(self) -> bool:
        """Whether the backbone starts from weights of an earlier training."""
        return self.pretrained or self.weights is not None

    @property
    def untrained(self) -> ModelConfig:
        """The same network with random weights, which is built without reading or downloading anything."""
        return derive(self, pretrained=False, weights=None, weights_sha256=None)
