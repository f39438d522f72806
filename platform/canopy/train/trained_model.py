"""Trained networks, read back from a run directory and checked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from canopy.bands import BandStatistics
from canopy.config import VariantConfig
from canopy.errors import ConfigError, InputError, RunDirError
from canopy.labels import LabelSet
from canopy.models.input_statistics import metadata_statistics
from canopy.models.network import MultiLabelNetwork, build_model
from canopy.models.weights import first_difference, first_not_finite
from canopy.models.weights_files import read_metadata
from canopy.storage import files
from canopy.storage.checksum import checksum
from canopy.storage.run_dir import RunDir
from canopy.train.training_run import training_run_directory

WEIGHTS = "weights.safetensors"
CONFIG = "config.json"
LABELS = "labels.json"
REMEDY = "Restore the file, or remove the directory and run jobs/train.py again."


@dataclass(frozen=True)
class TrainedModel:
    """The network of one finished training, in evaluation mode, with the variant that it was trained as."""

    variant: VariantConfig
    network: nn.Module


def weights_path(run_dir: RunDir, name: str, fold: int) -> str:
    """Path of the weights of the training of variant ``name`` that held out ``fold``."""
    return run_dir.path(training_run_directory(name, fold), WEIGHTS)


def load_trained_model(
    run_dir: RunDir, name: str, fold: int, labels: LabelSet, device: torch.device
) -> TrainedModel:
    """Load the network of a finished training.

    Every file is checked: the config must be valid, the labels and their order must be ``labels``, the
    weights must be those of the config's network and finite, and all files must be those that the training
    wrote.

    Args:
        run_dir: the run directory.
        name: name of the variant.
        fold: the fold that the training held out; 0 without folds.
        labels: labels that column k of the logits must mean, in this order.
        device: device to put the network on.

    Raises:
        RunDirError: when a file is missing, damaged or belongs to another training.
        StorageError: when the store cannot be read.
    """
    directory = training_run_directory(name, fold)
    path = weights_path(run_dir, name, fold)
    if not files.exists(path):
        problem = f"must hold the weights of {name}, fold {fold}"
        thing = f"Run directory {files.shown(run_dir.root)}"
        raise RunDirError(thing, problem, "none", "Run jobs/train.py with it first.")
    variant = read_variant(run_dir.path(directory, CONFIG))
    require_same_labels(run_dir.path(directory, LABELS), labels)
    bands = stored_bands(path)
    network = build_network(run_dir.path(directory, CONFIG), variant, len(labels), bands)
    fill_network(network, path)
    check_unchanged(run_dir, directory)
    return TrainedModel(variant, network.to(device).eval())


def read_variant(path: str) -> VariantConfig:
    """The variant in the ``config.json`` of a training.

    Raises:
        RunDirError: when it is missing or damaged.
    """
    try:
        return VariantConfig.model_validate(files.read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        got = f"{'.'.join(map(str, first['loc'])) or 'the value'}: {first['msg']}"
        raise damaged_error(path, "must be the config of a variant", got) from error
    except (FileNotFoundError, InputError) as error:
        raise damaged_error(path, "must be the config of a variant", got_of(error)) from error


def require_same_labels(path: str, labels: LabelSet) -> None:
    """Refuse a training whose ``labels.json`` is damaged or differs from ``labels`` in names or order.

    Raises:
        RunDirError: naming the first difference.
    """
    try:
        found = files.read_json(path)
    except (FileNotFoundError, InputError) as error:
        raise damaged_error(path, "must be the list of the training's labels", got_of(error)) from error
    expected = list(labels.names)
    if found == expected:
        return
    if not isinstance(found, list) or len(found) != len(expected):
        count = f"{len(found)} labels" if isinstance(found, list) else type(found).__name__
        raise damaged_error(path, f"must list the run's {len(expected)} labels", count)
    k = next(k for k, name in enumerate(expected) if found[k] != name)
    problem = f"must list the run's labels in their order; label {k + 1} must be {expected[k]}"
    raise damaged_error(path, problem, str(found[k]))


def stored_bands(path: str) -> BandStatistics | None:
    """The bands that the weights at ``path`` were trained on; None for RGB, and where they cannot be read.

    Raises:
        RunDirError: when their description is damaged.
    """
    try:
        metadata = read_metadata(files.read_bytes(path))
    except (ConfigError, ValueError, OSError):
        return None  # loading the weights names what is wrong
    return BandStatistics.from_metadata(metadata, files.shown(path), RunDirError)


def build_network(
    path: str, variant: VariantConfig, labels: int, bands: BandStatistics | None = None
) -> MultiLabelNetwork:
    """The network of ``variant`` for ``labels`` labels, without its weights.

    Args:
        path: path of the variant's ``config.json``; used in the error message.
        variant: the variant.
        labels: number of labels K.
        bands: bands of the images; None for RGB.

    Raises:
        RunDirError: when no such network can be built.
    """
    # The stored weights are complete, so none are downloaded or read from elsewhere.
    try:
        return build_model(variant.model.untrained, labels, None, bands)
    except InputError as error:
        got = f"{error.thing} {got_of(error)}"
        raise damaged_error(path, "must describe a network that can be built", got) from error


def fill_network(network: MultiLabelNetwork, path: str) -> None:
    """Load the weights at ``path`` into ``network``, with the images that they expect.

    Raises:
        RunDirError: when they are cut off, belong to another network, or are not finite.
    """
    try:
        data = files.read_bytes(path)
        state = load(data)
    except (FileNotFoundError, SafetensorError) as error:
        raise damaged_error(path, "must be a complete safetensors file", error) from error
    difference = first_difference(state, network.state_dict())
    if difference is not None:
        raise damaged_error(path, "must hold exactly the weights of its config's network", difference)
    if (name := first_not_finite(state)) is not None:
        raise damaged_error(path, "must hold finite weights", f"NaN or an infinite value in {name}")
    try:
        statistics = metadata_statistics(read_metadata(data), "its metadata")
    except ConfigError as error:
        raise damaged_error(path, error.constraint, error.got) from error
    network.load_state_dict(state)
    if statistics is not None:
        network.expect(statistics)


def check_unchanged(run_dir: RunDir, directory: str) -> None:
    """Refuse files that differ from those that the training wrote, by the checksums in its mark.

    Marks of earlier versions have no checksums; their files are accepted.

    Args:
        run_dir: the run directory.
        directory: directory of the training, relative to the run directory.

    Raises:
        RunDirError: naming the first file that differs.
    """
    mark = run_dir.read_mark(directory)
    if mark is None:
        return
    for name in (WEIGHTS, CONFIG, LABELS):
        if name in mark.outputs and checksum(run_dir.path(directory, name)) != mark.outputs[name]:
            problem = "must be the file that its training wrote (checksum in done.json)"
            raise damaged_error(run_dir.path(directory, name), problem, "another file")


def got_of(error: OSError | InputError) -> object:
    """The ``got`` part for an error raised while reading a file."""
    return error.got if isinstance(error, InputError) else "no such file"


def damaged_error(path: str, problem: str, got: object) -> RunDirError:
    """The error of a damaged or exchanged file."""
    return RunDirError(files.shown(path), problem, got, REMEDY)
