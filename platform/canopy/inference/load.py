"""Loads the model of a finished run from its directory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch

from canopy.bands import BandLayout
from canopy.config import Experiment
from canopy.ensemble.model import Ensemble
from canopy.errors import ConfigError, RunDirError, nearest
from canopy.inference.chips import ChipDecoder
from canopy.inference.export.hub import hub_labels, hub_layout, is_hub_folder, read_hub
from canopy.inference.members import refitted
from canopy.inference.model import Model
from canopy.inference.model_file import check_model
from canopy.inference.networks import Networks, Precision, chosen_device
from canopy.labels import LabelSet
from canopy.models.execution import Execution
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import MARK, RunDir
from canopy.train.trained_model import load_trained_model


def load_model(
    run_dir: str,
    *,
    members: Sequence[str] | None = None,
    max_members: int | None = None,
    device: str | torch.device | None = None,
    precision: Precision | None = None,
    compile: bool = False,
) -> Model:
    """The model of a finished run, or of a folder that was exported from one for the Hugging Face hub.

    Args:
        run_dir: directory or URI of the run or of the folder.
        members: variants to use; None: those that the run's ensemble reads. Weights, calibration and
            thresholds of another choice are fitted to the run's stored predictions, as the ensemble stage
            fits them.
        max_members: largest number of members, 1 or more; the best subset of that size (of ``members``,
            where given) by cross-fitted log loss is fitted in the same way.
        device: where the networks run, such as ``cpu`` or ``cuda:1``; None: the first GPU, else the CPU.
        precision: ``float32`` or ``bfloat16``; None: each network in the precision that it was trained in.
        compile: compile the networks with torch.compile: the first prediction takes a minute more, the
            following ones may be faster.

    Raises:
        RunDirError: when the run is not finished, or one of its files is missing, damaged or exchanged.
        PredictionsError: when ``ensemble.json`` or stored predictions are damaged.
        ConfigError: when an argument is wrong.
        StorageError: when the store cannot be read.
    """
    if precision is not None and precision not in get_args(Precision):
        raise ConfigError(
            "precision", f"must be {' or '.join(get_args(Precision))}", precision, "Or leave it out."
        )
    directory, place = RunDir(files.absolute(run_dir)), chosen_device(device)
    if is_hub_folder(directory.root):
        return hub_model(directory.root, members, max_members, place, precision, compile)
    config, ensemble = open_run(directory, members, max_members)
    return assemble(directory, config, ensemble, place, precision, compile)


def open_run(
    run_dir: RunDir, members: Sequence[str] | None = None, max_members: int | None = None
) -> tuple[Experiment, Ensemble]:
    """Config and ensemble of a finished run, files checked; arguments and errors of :func:`load_model`."""
    config, stored = read_run(run_dir)
    ensemble = chosen_ensemble(run_dir, config, stored, members, max_members)
    check_model(run_dir, config, ensemble.members)
    return config, ensemble


def assemble(
    run_dir: RunDir,
    config: Experiment,
    ensemble: Ensemble,
    device: torch.device,
    precision: Precision | None = None,
    compile: bool = False,
    execution: Execution | None = None,
) -> Model:
    """The model of ``ensemble`` with the networks of the run; the other arguments as of :func:`load_model`.

    With ``execution`` the networks are executed by those settings, else by the defaults of the device.

    Raises:
        RunDirError: when weights are missing, damaged or exchanged.
    """
    trained = {
        name: [
            load_trained_model(run_dir, name, fold, ensemble.labels, device) for fold in range(config.folds)
        ]
        for name in ensemble.members
    }
    networks = Networks.prepare(trained, device, precision, compile)
    if execution is not None:
        networks = networks.executed(execution)
    return Model(ensemble, networks, ChipDecoder.of(config.data))


def hub_model(
    folder: str,
    members: Sequence[str] | None,
    max_members: int | None,
    device: torch.device,
    precision: Precision | None,
    compile: bool,
) -> Model:
    """The model of a folder in the hub's layout; arguments and errors as of :func:`load_model`."""
    if members is not None or max_members is not None:
        need = "must be left out for a folder of the hub, which holds no predictions to refit an ensemble to"
        raise ConfigError("members", need, files.shown(folder), "Choose members when the run is exported.")
    found = read_hub(folder, device)
    return Model(found.ensemble, Networks.prepare(found.members, device, precision, compile), found.decoder)


def read_labels(place: str) -> LabelSet:
    """The labels of a finished run, or of a folder of the hub; no networks are loaded.

    Raises:
        RunDirError: when the run is not finished, or the folder is damaged.
        PredictionsError: when ``ensemble.json`` is damaged.
    """
    root = files.absolute(place)
    return hub_labels(root) if is_hub_folder(root) else read_run(RunDir(root))[1].labels


def read_layout(place: str) -> BandLayout | None:
    """The bands of a run's or a hub folder's chips; None for RGB. Errors as of :func:`read_labels`."""
    root = files.absolute(place)
    return hub_layout(root) if is_hub_folder(root) else BandLayout.of(RunDir(root).load_config().data)


def read_run(run_dir: RunDir) -> tuple[Experiment, Ensemble]:
    """Config and ensemble of a finished run.

    Raises:
        RunDirError: when the run is not finished, or its config is missing or damaged.
        PredictionsError: when ``ensemble.json`` is damaged.
    """
    config = run_dir.load_config()
    path = run_dir.path(Stage.ENSEMBLE, "ensemble.json")
    if not files.exists(path):
        stages = (Stage.PREPARE, Stage.TRAIN, Stage.ENSEMBLE)
        missing = next((one for one in stages if not files.exists(run_dir.path(one, MARK))), Stage.ENSEMBLE)
        thing = f"Run directory {files.shown(run_dir.root)}"
        got = f"no ensemble.json (the stage {missing} has not finished)"
        raise RunDirError(thing, "must hold a finished ensemble", got, "Run jobs/pipeline.py with it first.")
    return config, Ensemble.load(path)


def chosen_ensemble(
    run_dir: RunDir,
    config: Experiment,
    ensemble: Ensemble,
    members: Sequence[str] | None,
    max_members: int | None,
) -> Ensemble:
    """``ensemble``, or one that is refitted to a choice of members; arguments as of :func:`load_model`.

    Raises:
        ConfigError: when a name is unknown, or a number is below 1.
        PredictionsError: when the run's stored predictions are missing or damaged.
    """
    if isinstance(members, str):
        raise ConfigError("members", "must be a list of names", repr(members), f"Give [{members!r}].")
    known = [variant.name for variant in config.trained_variants]
    chosen = list(dict.fromkeys(ensemble.members if members is None else members))
    for name in chosen:
        if name not in known:
            raise ConfigError("members", "must be variants of the run", name, nearest(name, known))
    if not chosen or (max_members is not None and max_members < 1):
        got = "an empty list" if not chosen else f"max_members {max_members}"
        raise ConfigError("members", "must be one or more", got, f"The run has {', '.join(known)}.")
    most = len(chosen) if max_members is None else max_members
    if set(chosen) == set(ensemble.members) and most >= len(chosen):
        return ensemble
    return refitted(run_dir, config, chosen, most)
