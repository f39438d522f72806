"""The deployment that speaks HTTP: it checks requests, asks a model's replicas, and answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from canopy.errors import InputError, nearest
from canopy.inference.service.problems import BadImageError, RequestError
from canopy.inference.service.replica import Answer, ModelFacts
from canopy.inference.service.settings import ServiceOptions
from canopy.inference.service.uploads import Upload
from canopy.runtime.logging import configure_logging

logger = logging.getLogger(__name__)
TRIES = 3
"""Replicas that are asked for one answer: a prediction can be repeated, so the death of one is hidden."""
RETRY_AFTER = {"Retry-After": "1"}
READY_TIMEOUT_S = 5.0


class Gateway:
    """Answers HTTP requests with the answers of models; a deployment of Ray Serve.

    Args:
        options: options of the service.
        digest: SHA-256 of the token; None without authentication.
        models: handle of each model's deployment; the first is the default.
    """

    def __init__(
        self, options: ServiceOptions, digest: str | None, models: Mapping[str, DeploymentHandle[Any]]
    ) -> None:
        configure_logging("worker")
        self.options, self.digest = options, digest
        self._models = dict(models)

    def __serve_build_asgi_app__(self) -> Any:
        """The FastAPI application; Ray Serve calls this in each replica."""
        from canopy.inference.service.app import make_app

        return make_app(self)

    @property
    def names(self) -> list[str]:
        """Names of all models."""
        return list(self._models)

    def chosen(self, name: str | None) -> str:
        """The name of a model that is served; None gives the first.

        Raises:
            RequestError: 404 for an unknown name.
        """
        if name is None:
            return self.names[0]
        if name not in self._models:
            need, remedy = "must be the name of a model of this service", nearest(name, self._models)
            raise RequestError(404, "model", need, name[:64], remedy)
        return name

    async def facts(self, name: str, timeout_s: float | None = None) -> ModelFacts:
        """What is known of a model.

        Raises:
            RequestError: 429, 503 or 504.
        """
        found: ModelFacts = await self._ask(name, "facts", (), timeout_s or self.options.timeout_s)
        return found

    async def predict(self, name: str, uploads: list[Upload]) -> tuple[ModelFacts, list[Answer]]:
        """Probabilities and decisions of images.

        Raises:
            RequestError: 422 for an image that cannot be read, 429, 503 or 504.
        """
        files = [upload.data for upload in uploads]
        try:
            found: tuple[ModelFacts, list[Answer]] = await self._ask(
                name, "predict", (files,), self.options.timeout_s
            )
        except BadImageError as error:
            thing = f"Image {uploads[error.number].name}"
            remedy = "Repair it, or leave it out."
            raise RequestError(422, thing, "must be readable", error.problem, remedy) from None
        return found

    async def explain(self, name: str, upload: Upload, label: str) -> bytes:
        """The evidence for a label in an image, as a PNG.

        Raises:
            RequestError: 404 for an unknown label, 422 for an image that cannot be read or a model without
                maps, 429, 503 or 504.
        """
        facts = await self.facts(name)
        if label not in facts.labels:
            need, remedy = "must be a label of the model", nearest(label, facts.labels)
            raise RequestError(404, "label", need, label[:64], remedy)
        try:
            found: bytes = await self._ask(name, "explain", (upload.data, label), self.options.timeout_s)
        except BadImageError as error:
            thing, remedy = f"Image {upload.name}", "Repair it."
            raise RequestError(422, thing, "must be readable", error.problem, remedy) from None
        except InputError as error:
            raise RequestError(422, error.thing, error.constraint, error.got, error.remedy) from None
        return found

    async def not_ready(self) -> str | None:
        """Why the service cannot predict now; None when it can."""
        results = await asyncio.gather(
            *(self.facts(name, READY_TIMEOUT_S) for name in self._models), return_exceptions=True
        )
        for name, result in zip(self._models, results, strict=True):
            if isinstance(result, BaseException):
                return f"model {name} does not answer"
        return None

    async def _ask(self, name: str, method: str, arguments: tuple[Any, ...], timeout_s: float) -> Any:
        """Call a method of one of a model's replicas; a replica that dies is replaced by another.

        Raises:
            BadImageError, InputError: from the replica.
            RequestError: 429 when too many requests wait, 503 without a replica, 504 after the time.
        """
        end = time.monotonic() + timeout_s
        for attempt in range(TRIES):
            try:
                call = getattr(self._models[name], method).remote(*arguments)
                async with asyncio.timeout(max(end - time.monotonic(), 0)):
                    return await call
            except TimeoutError:
                need = f"must be answered within {timeout_s:g} s"
                raise RequestError(504, "The request", need, "no answer", "Send fewer images.") from None
            except BackPressureError:
                need, remedy = f"may have {self.options.max_queue} waiting requests", "Come again later."
                got = "as many already"
                raise RequestError(429, f"Model {name}", need, got, remedy, RETRY_AFTER) from None
            except RayTaskError as error:
                if isinstance(error.cause, BadImageError | InputError):
                    raise error.cause from None
                raise
            except (RayActorError, DeploymentUnavailableError, RayServeException) as error:
                logger.warning(
                    "attempt %d: model %s lost a replica: %s", attempt + 1, name, type(error).__name__
                )
        need, remedy = "must have a replica that answers", "Come again later."
        raise RequestError(503, f"Model {name}", need, f"{TRIES} failed", remedy, RETRY_AFTER)
