"""Soft labels for a training: out-of-fold probabilities of another run's ensemble.

Each training chip's probabilities come from networks that did not see it, combined as that run's ensemble
stage fitted them. Validation and test chips have none: nothing of another run touches them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canopy.config import Experiment, VariantConfig, derive
from canopy.data.catalogue import Catalogue
from canopy.ensemble.model import Ensemble
from canopy.errors import ConfigError, InputError
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.stored_predictions import fitting_members

SMALLEST = 1e-6
"""Distance of a soft label from 0 and 1, so that its logit is finite."""
REMEDY = "Name a run that was made with the same data section, split and seed, and with folds above 1."


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """The soft labels of a catalogue's rows.

    Args:
        probs_NK: at the variant's temperature, float32 in (0, 1); NaN where a row has none.
        members: the members of the ensemble that made them.
        rows: number of rows that have them.
    """

    probs_NK: NDArray[np.float32]
    members: tuple[str, ...]
    rows: int


@dataclass(frozen=True)
class Teacher:
    """A finished run with several folds.

    Args:
        thing: name of the option that names it; used in error messages.
        run: its directory.
        config: its config.
        catalogue: its catalogue.
        ensemble: its ensemble.
    """

    thing: str
    run: RunDir
    config: Experiment
    catalogue: Catalogue
    ensemble: Ensemble


def read_teacher(variant: VariantConfig) -> Teacher:
    """The run that ``distill.run`` of a variant names, which is not None.

    Raises:
        ConfigError: when it is not finished, or has one fold.
        StorageError: when the store cannot be read.
    """
    assert variant.distill.run is not None
    thing = f"variant {variant.name}: distill.run"
    run = RunDir(files.absolute(variant.distill.run))
    shown = files.shown(run.root)
    try:
        config = run.load_config()
        catalogue = Catalogue.read(run.path(Stage.PREPARE, "catalogue.parquet"))
        ensemble = Ensemble.load(run.path(Stage.ENSEMBLE, "ensemble.json"))
    except (FileNotFoundError, InputError) as error:
        got = f"{shown} ({error.thing} {error.constraint})" if isinstance(error, InputError) else shown
        remedy = "Finish that run first, or name another."
        raise ConfigError(thing, "must be the directory or URI of a finished run", got, remedy) from error
    if config.folds == 1:
        got = f"{shown} with one fold"
        raise ConfigError(thing, "must have several folds, and so out-of-fold probabilities", got, REMEDY)
    return Teacher(thing, run, config, catalogue, ensemble)


def soft_labels(variant: VariantConfig, catalogue: Catalogue) -> SoftLabels | None:
    """The soft labels of a variant's training rows; None where ``distill.run`` is not set.

    Args:
        variant: names the run and the temperature.
        catalogue: the catalogue of the variant's own run.

    Raises:
        ConfigError: see :func:`read_teacher`, and when that run is of other chips, labels or splits.
        PredictionsError: when its stored predictions are missing or damaged.
        StorageError: when the store cannot be read.
    """
    if variant.distill.run is None:
        return None
    teacher = read_teacher(variant)
    ensemble, run = teacher.ensemble, teacher.run
    rows_n = require_same_chips(teacher.thing, files.shown(run.root), catalogue, teacher.catalogue)
    members = fitting_members(run, ensemble.members, teacher.config.folds, teacher.catalogue)
    first = next(iter(members.values()))
    probs_nK = ensemble.probabilities({name: one.probs_NK for name, one in members.items()})
    position = {name: n for n, name in enumerate(first.ids.tolist())}
    order_n = np.array([position[catalogue.ids[row]] for row in rows_n])
    soft_NK = np.full(catalogue.targets_NK.shape, np.nan, np.float32)
    soft_NK[rows_n] = tempered(probs_nK[order_n], variant.distill.temperature)
    return SoftLabels(soft_NK, ensemble.members, len(rows_n))


def require_same_chips(thing: str, shown: str, catalogue: Catalogue, other: Catalogue) -> NDArray[np.int64]:
    """The training rows of ``catalogue`` (n,), each of which must be one of ``other`` with the same labels.

    A chip of another split there is refused too: that run has seen its labels, or chosen by them.

    Raises:
        ConfigError: naming the first difference.
    """
    if other.labels.names != catalogue.labels.names:
        need = f"must have the labels {', '.join(catalogue.labels.names)}, in this order"
        raise ConfigError(thing, need, f"{shown} with {', '.join(other.labels.names)}", REMEDY)
    theirs = {name: n for n, name in enumerate(other.ids)}
    rows_n = catalogue.rows("train")
    for row in range(len(catalogue)):
        name, split = catalogue.ids[row], catalogue.split[row]
        found = theirs.get(name)
        there = None if found is None else other.split[found]
        if there != split and (split == "train" or there is not None):
            need = "must split the chips in the same way"
            got = f"{shown}, where {name} is in {'no split' if there is None else there} and not in {split}"
            raise ConfigError(thing, need, got, REMEDY)
        if found is not None and (other.targets_NK[found] != catalogue.targets_NK[row]).any():
            got = f"{shown} with other labels of {name}"
            raise ConfigError(thing, "must have the same labels for every chip", got, REMEDY)
    return rows_n


def tempered(probs_NK: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Probabilities whose logits are divided by ``temperature``, within ``SMALLEST`` of 0 and 1."""
    p_NK = np.clip(probs_NK.astype(np.float64), SMALLEST, 1 - SMALLEST)
    logits_NK = (np.log(p_NK) - np.log1p(-p_NK)) / temperature
    return (1 / (1 + np.exp(-logits_NK))).astype(np.float32)


def with_absolute_teacher(variant: VariantConfig) -> VariantConfig:
    """The variant with a local path in ``distill.run`` made absolute: workers have other directories."""
    if variant.distill.run is None:
        return variant
    return derive(variant, distill=derive(variant.distill, run=files.absolute(variant.distill.run)))
