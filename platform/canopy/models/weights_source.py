"""Where ``model.weights`` points: a file, an object in a store, timm's hub, a directory, or another run.

====================================  ==================================================================
``PATH`` or ``URI``                   a safetensors file, or a PyTorch file of plain tensors
``hf-hub:USER/NAME``                  a repository of the hub in timm's form, ``@REVISION`` optional
``local-dir:PATH``                    such a repository in a local directory
``torchgeo:ENUM``                     weights of torchgeo, such as ``ResNet18_Weights.SENTINEL2_ALL_MOCO``
``run:PATH#VARIANT``                  another run of Canopy, at a path or URI; ``@FOLD`` optional
====================================  ==================================================================

Each may end in ``#sha256=HEX``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from canopy.config import ModelConfig, VariantConfig, derive
from canopy.errors import ConfigError, FourPartError, InputError
from canopy.models import hub
from canopy.models.input_statistics import InputStatistics, metadata_statistics, timm_statistics
from canopy.models.torchgeo_weights import band_name, torchgeo_weights, with_bands
from canopy.models.weights_cache import cached_copies, check_sha256, fetch
from canopy.models.weights_files import WeightsFile, read_weights_file
from canopy.storage import files
from canopy.storage.checksum import checksum
from canopy.storage.run_dir import RunDir

HASH = re.compile(r"#sha256=(?P<hash>.*)$")
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
RUN = re.compile(r"run:(?P<root>.+)#(?P<variant>[^#@]+)(?:@(?P<fold>\d+))?$")
PREFERRED = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
"""Names of the weights in a repository, the first that is there is taken (timm's order)."""


@dataclass(frozen=True)
class SourceWeights:
    """Weights as their source has them."""

    file: WeightsFile
    source: str
    """``model.weights`` without a hash; used in messages."""
    backbone: str | None = None
    """timm's name of the network that they belong to; None where the source does not say."""
    statistics: InputStatistics | None = None
    """The images that they were made for; None where the source does not say."""
    bands: tuple[str, ...] | None = None
    """The run's bands that the first layer takes, in this order; None for RGB."""


@dataclass(frozen=True)
class _Located:
    """A local file with what its source says beside it."""

    path: Path
    backbone: str | None = None
    statistics: InputStatistics | None = None
    columns: tuple[int, ...] | None = None
    """Channels of the first layer to take, in this order; None for all."""
    bands: tuple[str, ...] | None = None


def read_source(
    config: ModelConfig, thing: str = "model.weights", bands: Sequence[str] | None = None
) -> SourceWeights:
    """Fetch and read the weights that ``config.weights`` names; a remote file is downloaded once per machine.

    Args:
        config: its ``weights`` is not None.
        thing: name of the option that holds the address; used in error messages.
        bands: names of the bands of ``data.bands``; None for RGB.

    Raises:
        ConfigError: when the source is unknown, cannot be reached, or its file cannot be used.
    """
    assert config.weights is not None
    source, expected = split_hash(config, thing)
    shown = files.shown(source)
    try:
        located = _locate(source, thing, bands)
        check_sha256(located.path, expected, thing, shown)
        file = read_weights_file(located.path, thing, shown)
    except (OSError, InputError) as error:
        if isinstance(error, ConfigError) and error.thing.startswith(thing):
            raise
        problem = "must be the path or URI of a file that can be read"
        remedy = "Check the address and the permissions; `canopy weights` lists what is on this machine."
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, FourPartError):
            reason = f"{error.constraint}: {error.got}"
        raise ConfigError(thing, problem, f"{shown} ({reason})", remedy) from error
    own = metadata_statistics(file.metadata, f"{thing}: the metadata of {shown}")
    file = with_bands(file, located.columns)
    return SourceWeights(file, shown, located.backbone, own or located.statistics, located.bands)


def with_absolute_weights(variant: VariantConfig) -> VariantConfig:
    """The variant with the local path in ``model.weights`` made absolute: workers have other directories."""
    weights = variant.model.weights
    if weights is None:
        return variant
    scheme, _, rest = weights.partition(":")
    head = f"{scheme}:" if scheme in {"run", "local-dir"} else ""
    path = rest if head else weights
    if scheme.replace("hf_hub", "hf-hub") in {"hf-hub", "torchgeo"} or files.is_uri(path):
        return variant
    place, hash_sign, more = path.partition("#") if head == "run:" else _before_hash(path)
    absolute = f"{head}{files.absolute(place)}{hash_sign}{more}"
    return derive(variant, model=derive(variant.model, weights=absolute))


def _before_hash(path: str) -> tuple[str, str, str]:
    """A path, and ``#sha256=HEX`` behind it; the path may hold other number signs."""
    found = HASH.search(path)
    return (path, "", "") if found is None else (path[: found.start()], "", path[found.start() :])


def split_hash(config: ModelConfig, thing: str) -> tuple[str, str | None]:
    """The address without ``#sha256=HEX``, and the hash that the file must have.

    Raises:
        ConfigError: when the hash is malformed, or differs from ``config.weights_sha256``.
    """
    assert config.weights is not None
    found = HASH.search(config.weights)
    if found is None:
        return config.weights, config.weights_sha256
    stated = found["hash"]
    if not SHA256.fullmatch(stated):
        need = "must be followed by 64 hexadecimal digits after #sha256="
        raise ConfigError(thing, need, stated or "nothing", "Copy the whole hash, as sha256sum prints it.")
    if config.weights_sha256 is not None and config.weights_sha256.lower() != stated.lower():
        got = f"{stated} and {config.weights_sha256}"
        raise ConfigError(thing, "must have one hash, here and in model.weights_sha256", got, "Drop one.")
    return config.weights[: found.start()], stated


def is_at_hand(config: ModelConfig) -> bool:
    """Whether ``config.weights`` can be read without a hub."""
    assert config.weights is not None
    source, _ = split_hash(config, "model.weights")
    scheme, _, name = source.partition(":")
    if scheme == "torchgeo":
        return any(copy.source == source for copy in cached_copies())
    if scheme.replace("hf_hub", "hf-hub") != "hf-hub":
        return True
    repository, _, revision = name.partition("@")
    return all(hub.cached(repository, names, revision or None) for names in (("config.json",), PREFERRED))


def check_name(config: ModelConfig, thing: str) -> None:
    """Check what can be known of ``config.weights`` without its file: the name of an enum of torchgeo.

    Raises:
        ConfigError: when torchgeo is not installed, or has no such enum.
    """
    scheme, _, name = split_hash(config, thing)[0].partition(":")
    if scheme == "torchgeo":
        torchgeo_weights(name, thing)


def _locate(source: str, thing: str, bands: Sequence[str] | None) -> _Located:
    scheme, _, rest = source.partition(":")
    match scheme.replace("hf_hub", "hf-hub"):
        case "hf-hub":
            return _in_hub(rest, thing)
        case "local-dir":
            return _in_directory(Path(rest).expanduser(), thing)
        case "run":
            return _in_run(source, thing)
        case "torchgeo":
            return _in_torchgeo(rest, thing, bands)
    if files.is_uri(source) and not source.startswith("file://"):
        return _Located(fetch(source))
    return _Located(Path(files.resolve(source)[1]))


def _in_hub(name: str, thing: str) -> _Located:
    config_path = hub.download(name, ("config.json",), thing)
    weights_path = hub.download(name, PREFERRED, thing)
    return _described(config_path, weights_path, thing, f"hf-hub:{name}")


def _in_torchgeo(name: str, thing: str, bands: Sequence[str] | None) -> _Located:
    """The file of an enum, and its bands: the run's where it knows them by name, else red, green and blue."""
    found = torchgeo_weights(name, thing)
    known = bands is not None and set(map(band_name, bands)) <= set(found.bands)
    own = tuple(bands) if bands is not None and known else None
    columns = found.columns(own, thing)
    return _Located(
        found.fetch(),
        statistics=found.statistics(columns),
        columns=None if columns is None else tuple(columns),
        bands=own,
    )


def _in_directory(directory: Path, thing: str) -> _Located:
    found = [directory / name for name in PREFERRED if (directory / name).is_file()]
    config_path, shown = directory / "config.json", f"local-dir:{directory}"
    if not found or not config_path.is_file():
        need = f"must hold config.json and one of {', '.join(PREFERRED)}"
        got = shown if directory.is_dir() else f"{shown} (no such directory)"
        raise ConfigError(thing, need, got, "Save it with timm.models.save_for_hf, or give the file itself.")
    return _described(config_path, found[0], thing, shown)


def _described(config_path: Path, weights_path: Path, thing: str, shown: str) -> _Located:
    """What a repository's ``config.json`` says of its weights."""
    place = f"{thing}: config.json of {shown}"
    remedy = "Take a repository of timm's, or give the file of weights itself."
    try:
        described: Any = json.loads(config_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(place, "must be JSON", error, remedy) from None
    if not isinstance(described, dict) or not isinstance(described.get("architecture"), str):
        raise ConfigError(place, "must name timm's architecture", "none", remedy)
    own = described.get("pretrained_cfg", described)  # older repositories have one flat object
    return _Located(weights_path, described["architecture"], timm_statistics(own, place))


def _in_run(source: str, thing: str) -> _Located:
    found = RUN.fullmatch(source)
    if found is None:
        raise ConfigError(
            thing, "must have the form run:PATH#VARIANT or run:PATH#VARIANT@FOLD", source, "Name a variant."
        )
    run, variant, fold = RunDir(found["root"]), found["variant"], found["fold"] or "0"
    directory = f"train/{variant}/fold{fold}"
    mark = run.read_mark(directory)
    if mark is None:
        known = _finished_trainings(run)
        remedy = f"Finished there: {', '.join(known[:8])}." if known else "Nothing is finished there."
        got = f"{variant}, fold {fold}"
        raise ConfigError(thing, f"must name a finished training of {files.shown(run.root)}", got, remedy)
    weights, described = run.path(directory, "weights.safetensors"), run.path(directory, "config.json")
    for path in (weights, described):
        expected = mark.outputs.get(files.stem(path) + files.suffix(path))
        if expected is not None and checksum(path) != expected:
            problem = "must be the file that its training wrote (checksum in done.json)"
            remedy = "Restore the file, or take another run."
            raise ConfigError(thing, problem, f"{files.shown(path)}, another file", remedy)
    try:
        model = VariantConfig.model_validate(files.read_json(described)).model
    except ValidationError:
        remedy = "Restore the file, or use the version of Canopy that made the run."
        raise ConfigError(thing, "must name a training with a valid config", described, remedy) from None
    remote = files.is_uri(weights) and not weights.startswith("file://")
    local = fetch(weights) if remote else Path(files.resolve(weights)[1])
    own = InputStatistics().with_config(model) if model.mean is not None else None
    return _Located(local, model.backbone, own)


def _finished_trainings(run: RunDir) -> list[str]:
    """The finished trainings of a run, as VARIANT or VARIANT@FOLD."""
    try:
        names = files.list_files(run.path("train"), recursive=True)
    except FileNotFoundError:
        return []
    found = (re.fullmatch(r"([^/]+)/fold(\d+)/done\.json", name) for name in names)
    return [m[1] if m[2] == "0" else f"{m[1]}@{m[2]}" for m in found if m]
