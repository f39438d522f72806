"""``TrainingRun``: a variant, the fold that it holds out, and the rows that it uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canopy.config import SweepConfig, VariantConfig
from canopy.data.catalogue import Catalogue, Split


def training_run_name(variant: str, fold: int, folds: int) -> str:
    """Name of a training on the console and in logs: the variant, and the fold if there are several."""
    return variant if folds == 1 else f"{variant}/fold{fold}"


def training_run_directory(variant: str, fold: int) -> str:
    """Directory of a training's files, relative to the run directory."""
    return f"train/{variant}/fold{fold}"


@dataclass(frozen=True)
class TrainingRun:
    """A variant and the fold that its training holds out.

    Args:
        variant: the variant, swept parameters filled in.
        fold: the fold held out, from 0; with one fold nothing is held out.
        folds: number of folds.
        run_root: path or URI of the run directory.
        fingerprint: hash of everything that the result depends on.
        config_hash: hash of the whole experiment, stored in the training's predictions.
    """

    variant: VariantConfig
    fold: int
    folds: int
    run_root: str
    fingerprint: str
    config_hash: str

    @property
    def name(self) -> str:
        """Name on the console and in logs."""
        return training_run_name(self.variant.name, self.fold, self.folds)

    @property
    def directory(self) -> str:
        """Directory of the training's files, relative to the run directory."""
        return training_run_directory(self.variant.name, self.fold)

    def training_rows(self, catalogue: Catalogue) -> NDArray[np.int64]:
        """Catalogue rows to train on, shape (n,)."""
        return catalogue.rows("train", not_fold=self.fold if self.folds > 1 else None)

    def selection_rows(self, catalogue: Catalogue) -> NDArray[np.int64]:
        """Catalogue rows that select the best epoch, shape (n,).

        With one fold they are one half of the val split, because the ensemble is fitted on the other half.
        """
        return catalogue.rows("val", fold=0 if self.folds == 1 else None)

    def scored_rows(self, catalogue: Catalogue) -> dict[str, NDArray[np.int64]]:
        """Catalogue rows (n,) to predict after the training, by the stem of their predictions file."""
        splits: tuple[Split, ...] = ("val", "test")
        parts: dict[str, NDArray[np.int64]] = {split: catalogue.rows(split) for split in splits}
        if self.folds > 1:
            parts["heldout"] = catalogue.rows("train", fold=self.fold)
        return {name: rows for name, rows in parts.items() if len(rows)}


def fitting_part(folds: int) -> str:
    """Stem of the predictions file that the ensemble is fitted on: ``heldout`` with folds, else ``val``."""
    return "heldout" if folds > 1 else "val"


def sweep_rows(catalogue: Catalogue, config: SweepConfig) -> NDArray[np.int64]:
    """Catalogue rows (n,) for the sweep: the train split, or a random sample of ``config.rows``."""
    rows_N = catalogue.rows("train")
    if config.rows is None or config.rows >= len(rows_N):
        return rows_N
    return np.sort(np.random.default_rng([config.seed, 0x5EED]).choice(rows_N, config.rows, replace=False))
