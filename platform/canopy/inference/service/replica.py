"""One replica of a model: decodes images in threads, predicts in batches as large as the latency allows."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from ray import serve

from canopy.data.raster.decode import UnreadableImageError
from canopy.ensemble import model as ensemble_model
from canopy.inference.service.problems import BadImageError
from canopy.inference.service.settings import ServiceOptions
from canopy.runtime.logging import configure_logging

logger = logging.getLogger(__name__)
Answer = tuple[NDArray[np.float32], NDArray[np.uint8]]
"""Probabilities and decisions of one image, each (K,)."""
OVER = "the request's time was over"
SMOOTHING = 0.3
"""Weight of the newest batch in the running mean of the time per image."""


@dataclass(frozen=True)
class ModelFacts:
    """What a service says about a model; the fields are those of ``schemas.ModelResponse``."""

    version: str
    labels: tuple[str, ...]
    thresholds: dict[str, float]
    exclusive: tuple[tuple[str, ...], ...]
    members: dict[str, float]
    image_size: int
    summary: str
    scores: dict[str, Any]


class ModelReplica:
    """A model in a process of its own; a deployment of Ray Serve.

    Args:
        name: name of the model, for metrics.
        place: directory or URI of the run, or of a folder in the hub's layout.
        options: options of the service.
    """

    def __init__(self, name: str, place: str, options: ServiceOptions) -> None:
        configure_logging("worker")
        import torch

        import canopy
        from canopy.inference.service.metrics import ModelMetrics

        torch.set_num_threads(max(1, int(options.cpus_per_replica)))
        self._model = canopy.load(place, device="cuda" if options.gpus_per_replica else "cpu")
        self._facts = facts_of(self._model)
        self._metrics = ModelMetrics(name, self._facts.labels)
        self._options = options
        self._decoders = ThreadPoolExecutor(max(2, int(options.cpus_per_replica)), "decode")
        self._network = ThreadPoolExecutor(1, "network")
        self._seconds_per_image = 0.0
        self._predict_chips(
            np.zeros((1, *self._model.decoder.shape), self._model.decoder.dtype)
        )  # the first pass is the slowest

    async def facts(self) -> ModelFacts:
        """The model's labels, thresholds, members and scores."""
        return self._facts

    async def predict(self, files: Sequence[bytes]) -> tuple[ModelFacts, list[Answer]]:
        """Probabilities and decisions of image files.

        When the request's time is over, its client has got a 504. The images that are left are not predicted,
        so that a burst of requests does not keep the model busy afterwards.

        Raises:
            BadImageError: for the first image that cannot be read.
            TimeoutError: when the time was over before all images were predicted.
        """
        loop, end = asyncio.get_running_loop(), time.monotonic() + self._options.timeout_s
        decoding = [
            loop.run_in_executor(self._decoders, self._decode, n, data, end) for n, data in enumerate(files)
        ]
        results = await asyncio.gather(*decoding, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        chips: list[Any] = list(results)
        answers = await asyncio.gather(*(self._batched((chip, end)) for chip in chips))
        return self._facts, [in_time(answer) for answer in answers]

    async def explain(self, file: bytes, label: str) -> bytes:
        """The evidence for a label as a PNG: the chip in gray, warm where something speaks for the label.

        Raises:
            BadImageError: when the image cannot be read.
            ConfigError: when a backbone's features have no positions.
            DataError: when there is no such label.
        """
        loop = asyncio.get_running_loop()
        end = time.monotonic() + self._options.timeout_s
        chip_HWC = await loop.run_in_executor(self._decoders, self._decode, 0, file, end)
        return await loop.run_in_executor(self._network, self._overlay, chip_HWC, label)

    def _overlay(self, chip_HWC: NDArray[Any], label: str) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(self._model.explain(chip_HWC).overlay(label)).save(stream, "PNG")
        return stream.getvalue()

    def _decode(self, number: int, data: bytes, end: float) -> NDArray[Any]:
        if time.monotonic() >= end:
            raise TimeoutError(OVER)
        try:
            return self._model.decoder.chip(data)
        except UnreadableImageError as error:
            raise BadImageError(number, error.why) from None

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.0)
    async def _batched(self, waiting: list[tuple[NDArray[Any], float]]) -> list[Answer | None]:
        """Answer what has gathered while the last batch was computed: while idle, nobody waits."""
        return await self.answers(waiting)

    async def answers(self, waiting: Sequence[tuple[NDArray[Any], float]]) -> list[Answer | None]:
        """Predict one batch.

        Args:
            waiting: chips, each with the end of its request on the monotonic clock.

        Returns:
            The answers; None where that end was before the start.
        """
        start = time.monotonic()
        chips = [chip_HWC for chip_HWC, end in waiting if end > start]
        if not chips:
            return [None] * len(waiting)
        loop = asyncio.get_running_loop()
        answers = iter(await loop.run_in_executor(self._network, self._predict_chips, np.stack(chips)))
        self._resize_batch(len(chips), time.monotonic() - start)
        return [next(answers) if end > start else None for _, end in waiting]

    def _predict_chips(self, chips_nHWC: NDArray[Any]) -> list[Answer]:
        found = self._model.predict_decoded(chips_nHWC)
        self._metrics.batch(len(chips_nHWC), found.decisions_NK)
        return list(zip(found.probs_NK, found.decisions_NK, strict=True))

    def _resize_batch(self, count: int, seconds: float) -> None:
        """Let a batch take at most the target time, by the running mean of the time per image."""
        per_image, before = seconds / count, self._seconds_per_image
        self._seconds_per_image = per_image if not before else before + SMOOTHING * (per_image - before)
        fits = int(self._options.target_ms / 1e3 / max(self._seconds_per_image, 1e-9))
        batched: Any = self._batched  # Ray Serve adds methods to what it decorates
        batched.set_max_batch_size(min(max(fits, 1), self._options.max_batch))


def in_time(answer: Answer | None) -> Answer:
    """The answer.

    Raises:
        TimeoutError: when there is none because the request's time was over.
    """
    if answer is None:
        raise TimeoutError(OVER)
    return answer


def facts_of(model: Any) -> ModelFacts:
    """The facts of a loaded model."""
    ensemble = model.ensemble
    content = ensemble_model.to_json(ensemble)
    measured = content["measured"] or {}
    kept = ("macro_f1", "micro_f1", "map", "samples_f2", "per_class_f1")
    scores = {name: measured[name] for name in kept if name in measured}
    if measured.get("intervals"):
        scores["intervals"] = {name: measured["intervals"].get(name) for name in kept[:3]}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return ModelFacts(
        version=digest[:8],
        labels=ensemble.labels.names,
        thresholds={
            name: float(t) for name, t in zip(ensemble.labels.names, ensemble.thresholds, strict=True)
        },
        exclusive=ensemble.exclusive,
        members={name: round(weight, 6) for name, weight in ensemble.weights.items()},
        image_size=model.decoder.size,
        summary=ensemble.summary,
        scores=scores,
    )
