"""A run directory with everything that inference reads, made without training: random networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from canopy.config import DataConfig, EnsembleConfig, Experiment, ModelConfig, VariantConfig, derive
from canopy.ensemble.fit import fit_ensemble
from canopy.inference.model_file import write_model_file
from canopy.labels import LabelSet
from canopy.models.network import build_model
from canopy.predictions.predictions import Predictions
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.training_run import training_run_directory

LABELS = LabelSet(tuple(f"label{k:02}" for k in range(17)))
ROWS = 400
"""Rows of the random predictions that the ensemble is fitted to."""


def untrained_run(root: Path, backbones: tuple[str, ...], size: int) -> RunDir:
    """Write the run directory of one untrained variant per backbone, combined by their mean."""
    run = RunDir(str(root))
    variants = tuple(
        VariantConfig(name=f"m{n}-{backbone[:40]}", model=ModelConfig(backbone=backbone))
        for n, backbone in enumerate(backbones)
    )
    kind = "mean" if len(variants) > 1 else "best_single"
    config = Experiment(
        variants=variants,
        data=DataConfig(image_size=size),
        ensemble=derive(EnsembleConfig(), combination=kind, calibration="none", bootstrap=100),
    )
    run.store_config(config)
    rng = np.random.default_rng(0)
    targets_NK = (rng.random((ROWS, len(LABELS))) < 0.3).astype(np.uint8)
    ids = np.array([f"row{n}" for n in range(ROWS)])
    members = {}
    for n, variant in enumerate(variants):
        noise_NK = rng.normal(size=targets_NK.shape)
        probs_NK = 1 / (1 + np.exp(-(4 * targets_NK - 2 + noise_NK)))
        members[variant.name] = Predictions(ids, probs_NK.astype(np.float32), LABELS, targets_NK=targets_NK)
        torch.manual_seed(n)
        folder = Path(run.path(training_run_directory(variant.name, 0)))
        folder.mkdir(parents=True, exist_ok=True)
        network = build_model(variant.model, len(LABELS))
        save_file(network.state_dict(), folder / "weights.safetensors")
        files.write_json(str(folder / "config.json"), variant.model_dump(mode="json"))
        files.write_json(str(folder / "labels.json"), list(LABELS.names))
    fit_ensemble(members, config.ensemble).save(run.path("ensemble", "ensemble.json"))
    write_model_file(run, config)
    return run
