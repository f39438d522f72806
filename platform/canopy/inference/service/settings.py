"""Settings of the service: models, limits, replicas."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from canopy.config import Positive, Section
from canopy.errors import ConfigError, refuse_credentials

TOKEN_VARIABLE = "CANOPY_SERVE_TOKEN"
DEFAULT_NAME = "default"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
MB = 10**6


class ServiceOptions(Section):
    """Limits, batching, replicas and authentication of the service."""

    auth: bool = True
    """Require the token in every request for a model: ``Authorization: Bearer TOKEN``."""
    token_file: str | None = None
    """File that holds the token; None: the environment variable CANOPY_SERVE_TOKEN."""
    max_body_mb: Positive = 32.0
    """Largest body of a request, in MB (10^6 bytes), above 0."""
    max_images: int = Field(default=64, ge=1, le=1024)
    """Largest number of images in a request, 1 to 1024."""
    max_megapixels: Positive = 64.0
    """Largest image, in 10^6 pixels, above 0; it is read from the header, before the image is decoded."""
    max_queue: int = Field(default=128, ge=1)
    """Largest number of requests that wait for a model per HTTP replica, 1 or more; further ones get
    status 429."""
    timeout_s: Positive = 30.0
    """Time in which a request must be answered, in seconds, above 0."""
    target_ms: Positive = 100.0
    """Target of the time that one batch takes in a model, in milliseconds, above 0: batches are as large as
    it allows."""
    max_batch: int = Field(default=64, ge=1, le=1024)
    """Largest batch of images, 1 to 1024."""
    min_replicas: int = Field(default=1, ge=1)
    """Smallest number of replicas of each model, 1 or more."""
    max_replicas: int = Field(default=1, ge=1)
    """Largest number of replicas of each model; Ray Serve adds replicas while requests wait."""
    http_replicas: int = Field(default=1, ge=1)
    """Number of replicas that speak HTTP, 1 or more."""
    cpus_per_replica: float = Field(default=1.0, ge=0)
    """CPUs of each replica of a model, 0 or more; it computes with that many threads, at least one."""
    gpus_per_replica: float = Field(default=0.0, ge=0)
    """GPUs of each replica of a model, 0 or more; a fraction shares one GPU among several replicas."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ConfigError(
                "max_replicas",
                "must be at least min_replicas",
                f"{self.max_replicas} and {self.min_replicas}",
                "Raise it.",
            )
        if self.gpus_per_replica > 1 and self.gpus_per_replica != int(self.gpus_per_replica):
            raise ConfigError(
                "gpus_per_replica",
                "must be a fraction of one GPU or whole",
                self.gpus_per_replica,
                "Round it.",
            )
        return self

    @property
    def max_body_bytes(self) -> int:
        """``max_body_mb`` in bytes."""
        return int(self.max_body_mb * MB)

    @property
    def max_pixels(self) -> int:
        """``max_megapixels`` in pixels."""
        return int(self.max_megapixels * MB)


def named_models(given: list[str] | tuple[str, ...]) -> dict[str, str]:
    """Name -> directory or URI of each model, from ``[NAME=]RUN_DIR``; one without a name is ``default``.

    Raises:
        ConfigError: when there is none, or a name is unusable or repeated.
    """
    import re

    if not given:
        raise ConfigError("--model", "must be given at least once", "none", "Give --model RUN_DIR.")
    found: dict[str, str] = {}
    for text in given:
        name, equals, place = text.partition("=")
        if not equals or "/" in name or "\\" in name:
            name, place = DEFAULT_NAME, text
        if not re.fullmatch(NAME_PATTERN, name) or not place:
            need = "must be RUN_DIR or NAME=RUN_DIR, with a name of letters, digits and _ . -"
            raise ConfigError("--model", need, text, "Correct it.")
        if name in found:
            need, remedy = "must have distinct names", "Write NAME=RUN_DIR."
            raise ConfigError("--model", need, f"{name} twice", remedy)
        refuse_credentials("--model", place)
        found[name] = place
    return found
