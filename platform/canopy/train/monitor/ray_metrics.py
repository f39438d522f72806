"""The metrics of a training as Ray metrics, which Ray's metrics agent exports to Prometheus."""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Gauge

from canopy.runtime.metrics import GaugeKeeper
from canopy.runtime.task_names import ascii_text
from canopy.train.training_records import EpochRecord

TAGS = ("run", "variant", "fold", "rank")
LIVE_GAUGES = {
    "images_per_s": ("canopy_images_per_s", "Training images per second of this rank."),
    "wait_share": ("canopy_data_wait_share", "Share of the epoch's time spent getting batches, in [0, 1]."),
    "left_s": ("canopy_eta_seconds", "Seconds left of this training."),
    "gpu_utilization": (
        "canopy_gpu_utilization",
        "Share of time in which this rank's GPU is busy, in [0, 1].",
    ),
    "step": ("canopy_step", "Optimizer steps since the training began."),
    "gpu_bytes": ("canopy_gpu_memory_bytes", "Peak GPU memory allocated by this rank."),
}
"""Name and description of each gauge that is set between the ends of epochs."""
EPOCH_GAUGES = {
    "epoch": ("canopy_epoch", "Epochs completed."),
    "train_loss": ("canopy_train_loss", "Mean training loss of the last epoch, over all ranks."),
    "val_map": ("canopy_val_map", "Mean average precision on the selection rows."),
    "val_macro_f1": ("canopy_val_macro_f1", "Macro-F1 on the selection rows, best threshold per label."),
}
"""Name and description of each gauge that is set at the end of an epoch, by the field of its record."""


class RayMetrics:
    """Gauges with the tags run, variant, fold and rank.

    Args:
        tags: a value for each of ``TAGS``.
    """

    def __init__(self, tags: Mapping[str, str]) -> None:
        self._tags = {name: ascii_text(value) for name, value in tags.items()}
        self._keeper = GaugeKeeper()
        self._gauges = {
            name: Gauge(full_name, description=text, tag_keys=TAGS)
            for name, (full_name, text) in (LIVE_GAUGES | EPOCH_GAUGES).items()
        }

    def log_live(self, step: int, metrics: Mapping[str, float]) -> None:
        """See :class:`canopy.train.monitor.training_monitor.MetricsLogger`."""
        for name, value in {**metrics, "step": step}.items():
            self._set(name, value)

    def log_epoch(self, step: int, record: EpochRecord) -> None:  # noqa: ARG002 (argument of every logger)
        """See :class:`canopy.train.monitor.training_monitor.MetricsLogger`."""
        for name in EPOCH_GAUGES:
            self._set(name, getattr(record, name))

    def close(self) -> None:
        """Let the series of this rank end."""
        self._keeper.close()

    def _set(self, name: str, value: float) -> None:
        full_name, _ = (LIVE_GAUGES | EPOCH_GAUGES)[name]
        self._keeper.set(self._gauges[name], full_name, float(value), self._tags)
