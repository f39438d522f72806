"""The model of a finished run: its ensemble, the networks of the members, and their preprocessing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from canopy.config import SensorConfig
from canopy.data.transforms.augment import normalize
from canopy.data.transforms.crop import center_crop
from canopy.ensemble.model import Ensemble
from canopy.errors import RunDirError
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.evaluate import logits_to_probs, predict_logits, split_rows
from canopy.train.trained_model import TrainedModel, load_trained_model

SCORE_BATCH = 256
"""Images in one forward pass."""


@dataclass(frozen=True)
class Model:
    """An ensemble with the networks of its members.

    Args:
        ensemble: weights, calibration, thresholds.
        networks: by member, one per fold.
        image_size: height and width of decoded images, pixels.
        device: where the networks run.
        sensor: conversion of images with many bands or 16 bits, as in training.
    """

    ensemble: Ensemble
    networks: dict[str, list[TrainedModel]]
    image_size: int
    device: torch.device
    sensor: SensorConfig

    @classmethod
    def load(cls, run_dir: RunDir) -> Self:
        """Read the model of a finished run; on the first GPU of this machine, else on the CPU.

        Raises:
            RunDirError: when the run has no ensemble yet, or weights are missing.
            PredictionsError: when ``ensemble.json`` is damaged.
        """
        config = run_dir.load_config()
        path = run_dir.path(Stage.ENSEMBLE, "ensemble.json")
        if not files.exists(path):
            thing = f"Run directory {files.shown(run_dir.root)}"
            remedy = "Run jobs/pipeline.py with it first."
            raise RunDirError(thing, "must hold a finished ensemble", "none", remedy)
        ensemble = Ensemble.load(path)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        labels, folds = ensemble.labels, range(config.folds)
        networks = {
            name: [load_trained_model(run_dir, name, fold, labels, device) for fold in folds]
            for name in ensemble.members
        }
        return cls(ensemble, networks, config.data.image_size, device, config.data.sensor)

    def predict(self, images_NHWC: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Probabilities and decisions, each (N, K), of decoded images (N, image_size, image_size, 3)."""
        return self.ensemble.predict(
            {
                name: [self._probabilities(network, images_NHWC) for network in networks]
                for name, networks in self.networks.items()
            }
        )

    def _probabilities(self, trained: TrainedModel, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        variant = trained.variant
        chips_NHWC = center_crop(torch.from_numpy(images_NHWC), variant.augment.crop)
        batches = (
            (rows, normalize(chips_NHWC[rows].to(self.device)))
            for rows in split_rows(np.arange(len(images_NHWC)), SCORE_BATCH)
        )
        labels = len(self.ensemble.labels)
        _, logits_NK = predict_logits(trained.network, batches, labels, variant.optim, variant.tta)
        return logits_to_probs(logits_NK)
