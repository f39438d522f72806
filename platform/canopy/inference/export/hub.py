"""A model as a folder in the layout of the Hugging Face hub, and back.

::

    FOLDER/
      config.json               ensemble, variants of the members, image size, sensor, bands; labels by number
      model.safetensors         weights of all networks, named MEMBER/foldF/TENSOR
      preprocessor_config.json  size, resampling, mean and standard deviation, in transformers' terms
      README.md                 the model card

``config.json`` holds the SHA-256 of the weights, so that a file of another model is refused. Nothing is
pickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

import canopy
from canopy.bands import BandLayout, BandStatistics
from canopy.config import SensorConfig, VariantConfig, derive
from canopy.data.transforms.normalize import IMAGENET_MEAN, IMAGENET_STD
from canopy.ensemble import model as ensemble_model
from canopy.ensemble.model import Ensemble
from canopy.errors import RunDirError
from canopy.inference.chips import ChipDecoder
from canopy.labels import LabelSet
from canopy.models.network import MultiLabelNetwork
from canopy.models.weights import first_difference, first_not_finite
from canopy.storage import files
from canopy.storage.json_fields import JsonField
from canopy.train.trained_model import TrainedModel, build_network

if TYPE_CHECKING:
    from canopy.inference.model import Model

FORMAT = "canopy-hub/1"
CONFIG, WEIGHTS, PREPROCESSOR, CARD = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "README.md",
)
REMEDY = "Export the run again, or download the folder again."
BILINEAR = 2
"""Pillow's number of its bilinear filter."""


@dataclass(frozen=True, eq=False)
class HubModel:
    """The content of a folder.

    Args:
        ensemble: weights, calibration, thresholds.
        members: by member, one network per fold, in evaluation mode.
        decoder: turns images into the chips that the networks were trained on.
    """

    ensemble: Ensemble
    members: Mapping[str, Sequence[TrainedModel]]
    decoder: ChipDecoder

    @property
    def bands(self) -> BandStatistics | None:
        """The bands of the chips with their statistics; None for RGB."""
        return cast(MultiLabelNetwork, next(iter(self.members.values()))[0].network).bands


def is_hub_folder(folder: str) -> bool:
    """Whether ``folder`` holds a ``config.json`` and weights, as :func:`write_hub` leaves them.

    Raises:
        StorageError: when the object store refuses.
    """
    return all(files.exists(files.join(folder, name)) for name in (CONFIG, WEIGHTS))


def write_hub(content: HubModel, card: str, folder: Path) -> None:
    """Write the folder; it must not exist.

    Args:
        content: the model.
        card: text of ``README.md``.
        folder: the folder to make.
    """
    folder.mkdir(parents=True)
    state = {
        f"{name}/fold{fold}/{key}": tensor.detach().cpu().contiguous().clone()
        for name, folds in content.members.items()
        for fold, trained in enumerate(folds)
        for key, tensor in trained.network.state_dict().items()
    }
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    files.write_json(str(folder / CONFIG), _config(content, digest))
    files.write_json(str(folder / PREPROCESSOR), _preprocessor(content))
    files.write_bytes(str(folder / CARD), card.encode())


def read_hub(folder: str, device: torch.device) -> HubModel:
    """Read what :func:`write_hub` wrote; every file is checked.

    Args:
        folder: directory or URI.
        device: device to put the networks on.

    Raises:
        RunDirError: when a file is missing, damaged, of an unknown format or of another model.
        StorageError: when the store cannot be read.
    """
    path, own = files.join(folder, CONFIG), _own_part(folder)
    data = _read(folder, WEIGHTS)
    if hashlib.sha256(data).hexdigest() != own.get("weights_sha256").text():
        need = f"must be the weights that {CONFIG} was written with (SHA-256)"
        raise RunDirError(files.shown(files.join(folder, WEIGHTS)), need, "another file", REMEDY)
    ensemble = ensemble_model.from_json(own.get("ensemble"))
    try:
        state = load(data)
        variants = {
            name: VariantConfig.model_validate(value) for name, value in own.get("variants").value.items()
        }
        sensor = SensorConfig.model_validate(own.get("sensor").value)
    except (SafetensorError, ValidationError, AttributeError) as error:
        raise RunDirError(files.shown(folder), "must hold a model of Canopy", error, REMEDY) from None
    layout, statistics = _read_bands(folder, own)
    folds, labels = own.get("folds").integer(1), len(ensemble.labels)
    members = {}
    for name in ensemble.members:
        if name not in variants:
            raise RunDirError(files.shown(path), "must describe every member", f"no {name}", REMEDY)
        members[name] = [
            _trained(path, variants[name], _part(state, f"{name}/fold{fold}/"), labels, device, statistics)
            for fold in range(folds)
        ]
    size, max_bytes = own.get("image_size").integer(1), own.get("max_image_bytes").integer(1)
    return HubModel(ensemble, members, ChipDecoder(size, sensor, max_bytes, layout))


def _read_bands(folder: str, own: JsonField) -> tuple[BandLayout | None, BandStatistics | None]:
    """Bands and statistics of a folder; both None for RGB.

    Raises:
        RunDirError: when they are damaged or contradict each other.
    """
    found = own.optional("bands")
    if found is None:
        return None, None
    thing, need = files.shown(files.join(folder, CONFIG)), "must hold the bands of its images"
    try:
        layout = BandLayout.from_json(found.get("layout").mapping())
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        raise RunDirError(thing, need, error, REMEDY) from None
    statistics = BandStatistics.from_json(found.get("statistics").value, f"{thing}: bands.statistics")
    if (layout.names, layout.dtype) != (statistics.names, statistics.dtype):
        got = f"{', '.join(layout.names)} ({layout.dtype}) and statistics of {', '.join(statistics.names)}"
        raise RunDirError(thing, need, f"{got} ({statistics.dtype})", REMEDY)
    return layout, statistics


def hub_labels(folder: str) -> LabelSet:
    """The labels of a folder, in order; errors as of :func:`read_hub`."""
    return ensemble_model.from_json(_own_part(folder).get("ensemble")).labels


def hub_layout(folder: str) -> BandLayout | None:
    """The bands of a folder's chips; None for RGB. Errors as of :func:`read_hub`."""
    return _read_bands(folder, _own_part(folder))[0]


def hub_content(model: Model) -> HubModel:
    """The parts of a loaded model that a folder keeps."""
    return HubModel(model.ensemble, model.networks.members, model.decoder)


def _own_part(folder: str) -> JsonField:
    """Canopy's part of ``config.json``.

    Raises:
        RunDirError: when it is missing, damaged or of an unknown format.
    """
    path = files.shown(files.join(folder, CONFIG))
    own = JsonField.parse(_read(folder, CONFIG), path, RunDirError, REMEDY).get("canopy")
    if own.get("format").value != FORMAT:
        remedy = "Use the version of Canopy that exported it, or export the run again."
        raise RunDirError(path, f"must be of format {FORMAT}", own.get("format").value, remedy)
    return own


def _config(content: HubModel, digest: str) -> dict[str, Any]:
    names = content.ensemble.labels.names
    variants = {
        name: _without_addresses(folds[0].variant).model_dump(mode="json")
        for name, folds in content.members.items()
    }
    bands, layout = content.bands, content.decoder.layout
    described = {}
    if bands is not None and layout is not None:
        described = {"bands": {"layout": layout.to_json(), "statistics": bands.to_json()}}
    return {
        "model_type": "canopy",
        "architectures": ["CanopyEnsemble"],
        "problem_type": "multi_label_classification",
        "num_labels": len(names),
        "id2label": {str(k): name for k, name in enumerate(names)},
        "label2id": {name: k for k, name in enumerate(names)},
        "canopy": {
            "format": FORMAT,
            "version": canopy.__version__,
            "weights_sha256": digest,
            "image_size": content.decoder.size,
            "max_image_bytes": content.decoder.max_bytes,
            "sensor": content.decoder.sensor.model_dump(mode="json"),
            **described,
            "folds": len(next(iter(content.members.values()))),
            "variants": variants,
            "ensemble": ensemble_model.to_json(content.ensemble),
        },
    }


def _preprocessor(content: HubModel) -> dict[str, Any]:
    crops = {name: folds[0].variant.augment.crop for name, folds in content.members.items()}
    side, bands = content.decoder.size, content.bands
    # transformers divides levels by the highest one first.
    highest, mean, std = 255, list(IMAGENET_MEAN), list(IMAGENET_STD)
    if bands is not None:
        highest = bands.highest
        mean, std = ([level / highest for level in part] for part in (bands.mean, bands.std))
    return {
        "image_processor_type": "CanopyImageProcessor",
        "do_convert_rgb": bands is None,
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": BILINEAR,
        "do_center_crop": any(crops.values()),
        "crop_size": {name: crop or side for name, crop in crops.items()},
        "do_rescale": True,
        "rescale_factor": 1 / highest,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
        "input_size": {name: folds[0].variant.model.input_size for name, folds in content.members.items()},
        "test_time_augmentation": {name: folds[0].variant.tta for name, folds in content.members.items()},
    }


def _without_addresses(variant: VariantConfig) -> VariantConfig:
    """The variant without the place of its first weights: the folder holds the trained ones."""
    return derive(variant, model=derive(variant.model, pretrained=False, weights=None))


def _read(folder: str, name: str) -> bytes:
    path = files.join(folder, name)
    try:
        return files.read_bytes(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise RunDirError(files.shown(folder), f"must hold {name}", "none", REMEDY) from None


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def _trained(
    path: str,
    variant: VariantConfig,
    state: Mapping[str, Tensor],
    labels: int,
    device: torch.device,
    bands: BandStatistics | None,
) -> TrainedModel:
    """A network with its weights.

    Raises:
        RunDirError: when the weights belong to another network or are not finite.
    """
    network = build_network(path, variant, labels, bands)
    problem = first_difference(state, network.state_dict())
    if problem is None and (name := first_not_finite(state)) is not None:
        problem = f"NaN or an infinite value in {name}"
    if problem is not None:
        thing, need = files.shown(path), f"must hold the weights of {variant.name}"
        raise RunDirError(thing, need, problem, REMEDY)
    network.load_state_dict(state)
    return TrainedModel(variant, network.to(device).eval())
