"""Metrics of the service, at the Prometheus endpoint of each node of Ray."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from ray.util.metrics import Counter, Histogram

from canopy.runtime.task_names import ascii_text

SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]
SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]


class ModelMetrics:
    """Batches and decisions of one model.

    The positive rate of a label is ``rate(canopy_serve_positives) / rate(canopy_serve_images)``: it drifts
    when the images do.

    Args:
        model: name of the model.
        labels: its labels.
    """

    def __init__(self, model: str, labels: Sequence[str]) -> None:
        tags = {"model": ascii_text(model)}
        self._labels = [ascii_text(label) for label in labels]
        self._sizes = Histogram(
            "canopy_serve_batch_size",
            "Images in a batch.",
            boundaries=[float(size) for size in SIZES],
            tag_keys=("model",),
        ).set_default_tags(tags)
        self._images = Counter("canopy_serve_images", "Images predicted.", tag_keys=("model",))
        self._images.set_default_tags(tags)
        self._positives = Counter(
            "canopy_serve_positives", "Images for which a label was predicted.", tag_keys=("model", "label")
        )
        self._positives.set_default_tags(tags)

    def batch(self, count: int, decisions_nK: NDArray[np.uint8]) -> None:
        """Count one batch."""
        self._sizes.observe(count)
        self._images.inc(count)
        for label, positives in zip(self._labels, decisions_nK.sum(axis=0).tolist(), strict=True):
            if positives:
                self._positives.inc(positives, {"label": label})


class HttpMetrics:
    """Requests by path and status: their number and their time, from the first byte to the last."""

    def __init__(self) -> None:
        self._seconds = Histogram(
            "canopy_serve_request_seconds",
            "Time of a request.",
            boundaries=SECONDS,
            tag_keys=("path", "status"),
        )

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count one request.

        Args:
            path: one of the service's own paths, never what a client made up.
            status: HTTP status.
            seconds: its time.
        """
        self._seconds.observe(seconds, {"path": path, "status": str(status)})
