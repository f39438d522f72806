"""Synthetic members for the tests of the ensemble: one signal, each member with independent noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy import metrics
from canopy.config import EnsembleConfig
from canopy.ensemble.logistic import sigmoid
from canopy.ensemble.model import Ensemble
from canopy.labels import LabelSet
from canopy.metrics import Counts
from canopy.predictions.predictions import Predictions

LABELS = LabelSet(("common", "half", "some", "rare"))
RATES = np.array([0.9, 0.5, 0.2, 0.04])
FAST = EnsembleConfig(folds=4, bags=2, bootstrap=100)
Members = dict[str, Predictions]


def world(rows: int, seed: int = 0, noises: tuple[float, ...] = (1.4, 1.5, 1.6)) -> Members:
    """Members that are the same signal plus independent noise."""
    rng = np.random.default_rng(seed)
    bias = np.log(RATES / (1 - RATES)) * 1.6
    signal = 2 * rng.normal(size=(rows, 4)) + bias
    targets = (rng.random((rows, 4)) < sigmoid(signal)).astype(np.uint8)
    ids = np.array([f"{seed}-{n}" for n in range(rows)])
    return {
        f"m{i}": Predictions(
            ids,
            sigmoid(signal + noise * rng.normal(size=(rows, 4))).astype(np.float32),
            LABELS,
            targets_NK=targets,
        )
        for i, noise in enumerate(noises)
    }


def probs(members: Members) -> dict[str, NDArray[np.float32]]:
    return {name: member.probs_NK for name, member in members.items()}


def value(ensemble: Ensemble, test: Members) -> float:
    counts = Counts.of(test["m0"].targets_NK, ensemble.predict(probs(test))[1])  # type: ignore[arg-type]
    return float(metrics.macro_f1(counts) + metrics.micro_f1(counts)) / 2


def content(ensemble: Ensemble, tmp_path: Path, name: str) -> Any:
    """Content of the file that ``save`` writes."""
    ensemble.save(tmp_path / name)
    return json.loads((tmp_path / name).read_text())
