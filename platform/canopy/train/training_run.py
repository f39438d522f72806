"""One training: a variant on one fold of the data, everything that defines it in one value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canopy.config import SweepConfig, VariantConfig
from canopy.data.catalogue import Catalogue, Split


def training_run_name(variant: str, fold: int, folds: int) -> str:
    """How people and logs call the training of ``variant`` that holds out ``fold`` of ``folds``."""
    return variant if folds == 1 else f"{variant}/fold{fold}"


def training_run_directory(variant: str, fold: int) -> str:
    """Where it writes, relative to the run directory."""
    return f"train/{variant}/fold{fold}"


@dataclass(frozen=True)
class TrainingRun:
    """A variant and the fold that its training holds out.

    Args:
        variant: complete, swept parameters filled in.
        fold: the fold held out; 0 when there is one fold only, which then holds nothing out.
        folds: how many folds there are.
        run: the run directory.
        fingerprint: of everything that the result depends on.
        config_hash: of the whole experiment, written into what the unit makes.
    """

    variant: VariantConfig
    fold: int
    folds: int
    run: str
    fingerprint: str
    config_hash: str

    @property
    def name(self) -> str:
        """How people and logs call it."""
        return training_run_name(self.variant.name, self.fold, self.folds)

    @property
    def directory(self) -> str:
        """Where it writes, relative to the run directory."""
        return training_run_directory(self.variant.name, self.fold)

    def training_rows(self, catalogue: Catalogue) -> NDArray[np.int64]:
        """Catalogue rows to learn from."""
        return catalogue.rows("train", not_fold=self.fold if self.folds > 1 else None)

    def selection_rows(self, catalogue: Catalogue) -> NDArray[np.int64]:
        """Rows that choose the epoch: one half of val when the other half has to fit the ensemble."""
        return catalogue.rows("val", fold=0 if self.folds == 1 else None)

    def scored_rows(self, catalogue: Catalogue) -> dict[str, NDArray[np.int64]]:
        """Rows to predict after training, by the name of their predictions file."""
        splits: tuple[Split, ...] = ("val", "test")
        parts: dict[str, NDArray[np.int64]] = {split: catalogue.rows(split) for split in splits}
        if self.folds > 1:
            parts["heldout"] = catalogue.rows("train", fold=self.fold)
        return {name: rows for name, rows in parts.items() if len(rows)}


def fitting_part(folds: int) -> str:
    """Which predictions the ensemble fits on: ``heldout`` with folds, else ``val`` (its second half)."""
    return "heldout" if folds > 1 else "val"


def sweep_rows(catalogue: Catalogue, config: SweepConfig) -> NDArray[np.int64]:
    """The training rows that a trial learns from: all, or ``config.rows`` drawn by seed."""
    rows_N = catalogue.rows("train")
    if config.rows is None or config.rows >= len(rows_N):
        return rows_N
    return np.sort(np.random.default_rng([config.seed, 0x5EED]).choice(rows_N, config.rows, replace=False))
