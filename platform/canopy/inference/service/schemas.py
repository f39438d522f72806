"""Bodies of requests and responses, for validation and for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Score = Annotated[float, Field(ge=0, le=1)]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC"
"""A PNG of one black pixel in base64, for examples."""


class Body(BaseModel):
    """Base of all bodies: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class EncodedImage(Body):
    """One image."""

    data: str = Field(description="The file (JPEG, PNG, WebP or TIFF) in base64.", min_length=1)
    id: str | None = Field(
        default=None, max_length=255, description="A name; it is repeated in the response."
    )


class PredictRequest(Body):
    """Images to predict, as JSON."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"images": [{"id": "chip.png", "data": PIXEL}]}]}
    )

    images: list[EncodedImage] = Field(min_length=1, description="One or more images.")
    model: str | None = Field(
        default=None, description="Name of the model; may be omitted for the first one."
    )


class ImageResult(Body):
    """The prediction for one image."""

    id: str = Field(description="The name in the request, or the number of the image.")
    labels: list[str] = Field(description="The predicted labels.")
    probabilities: dict[str, Score] = Field(description="Probability of every label.")


class PredictResponse(Body):
    """Predictions in the order of the images."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "default",
                    "version": "3f9a1c20",
                    "results": [
                        {"id": "chip.png", "labels": ["road"], "probabilities": {"road": 0.91, "water": 0.02}}
                    ],
                }
            ]
        }
    )

    model: str = Field(description="Name of the model.")
    version: str = Field(description="Version of the model: a hash of its ensemble.")
    results: list[ImageResult]


class ModelResponse(Body):
    """A model that is served."""

    model: str = Field(description="Name of the model.")
    version: str = Field(description="Version of the model: a hash of its ensemble.")
    models: list[str] = Field(description="Names of all models of this service.")
    labels: list[str] = Field(description="All labels, in order.")
    thresholds: dict[str, float] = Field(
        description="Threshold of every label; above 1 for a label that is never predicted."
    )
    exclusive: list[list[str]] = Field(description="Groups of labels of which each image gets exactly one.")
    members: dict[str, float] = Field(description="Weight of every member of the ensemble.")
    image_size: int = Field(description="Side to which images are resized, in pixels.")
    summary: str = Field(description="The combination and the reason for it.")
    scores: dict[str, Any] = Field(
        description="Figures measured on the test split, with 95% intervals; empty where none were."
    )
    canopy: str = Field(description="Version of Canopy.")


class Health(Body):
    """The state of the service."""

    status: str = Field(description="ok, or the reason why not.")


class Problem(Body):
    """An error in four parts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": "The request must hold at most 64 images. Got: 100. Send several requests.",
                    "thing": "The request",
                    "constraint": "must hold at most 64 images",
                    "got": "100",
                    "remedy": "Send several requests.",
                }
            ]
        }
    )

    error: str = Field(description="The whole sentence.")
    thing: str
    constraint: str
    got: str
    remedy: str
