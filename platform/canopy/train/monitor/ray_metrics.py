"""The figures of a training as Ray metrics, which Ray's metrics agent exposes to Prometheus."""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

TAGS = ("run", "variant", "fold", "rank")
GAUGES = {
    "images_per_s": ("canopy_images_per_s", "Training images per second of this rank."),
    "wait_share": ("canopy_data_wait_share", "Share of the epoch's time spent getting batches, in [0, 1]."),
    "left_s": ("canopy_eta_seconds", "Seconds left of this training."),
    "gpu_bytes": ("canopy_gpu_memory_bytes", "Most GPU memory allocated so far by this rank."),
    "epoch": ("canopy_epoch", "Epochs completed."),
    "train_loss": ("canopy_train_loss", "Mean training loss of the last epoch, over all ranks."),
    "val_map": ("canopy_val_map", "Mean average precision on the selection rows."),
    "val_macro_f1": ("canopy_val_macro_f1", "Macro-F1 on the selection rows, best threshold per label."),
}


class RayMetrics:
    """Gauges by variant, fold and rank, and a counter of steps.

    Args:
        tags: a value for each of ``TAGS``.
    """

    def __init__(self, tags: Mapping[str, str]) -> None:
        self._gauges = {
            name: Gauge(full, description=text, tag_keys=TAGS).set_default_tags(dict(tags))
            for name, (full, text) in GAUGES.items()
        }
        self._steps = Counter("canopy_steps", description="Optimizer steps taken.", tag_keys=TAGS)
        self._steps.set_default_tags(dict(tags))
        self._seen: int | None = None

    def live(self, step: int, figures: Mapping[str, float]) -> None:
        """See :class:`canopy.train.monitor.callbacks.MetricsLogger`."""
        if self._seen is not None and step > self._seen:
            self._steps.inc(step - self._seen)
        self._seen = step
        self._set(figures)

    def epoch(self, step: int, record: Mapping[str, float]) -> None:  # noqa: ARG002 (as every sink)
        """See :class:`canopy.train.monitor.callbacks.MetricsLogger`."""
        self._set({name: value for name, value in record.items() if name != "images_per_s"})  # all ranks'

    def close(self) -> None:
        """Nothing is held."""

    def _set(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            if name in self._gauges:
                self._gauges[name].set(float(value))
