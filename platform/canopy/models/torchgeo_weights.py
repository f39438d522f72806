"""Weights of remote-sensing networks by torchgeo's enums, such as ``ResNet18_Weights.SENTINEL2_ALL_MOCO``.

torchgeo (the extra ``torchgeo``) knows where their files are, which bands they take, and how these are
normalized. The files are those of timm's networks; those of other networks are refused when they are matched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from canopy.config import SENTINEL2
from canopy.errors import ConfigError, nearest
from canopy.models.input_statistics import BANDS, InputStatistics
from canopy.models.weights_cache import fetch_url
from canopy.models.weights_files import WeightsFile

HASH = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
"""Beginning of a file's SHA-256 in its name, as torch's hub writes it."""
NUMBERED = re.compile(r"b0*(\d+[a-z]?)")
RGB = (("b4", "b3", "b2"), ("r", "g", "b"))
"""Red, green and blue as torchgeo names them: of Sentinel-2, and of aerial images."""
REFLECTANCE, BYTE = 10_000.0, 255.0
"""Largest value of a pixel in the two units that torchgeo's transforms divide by."""
FIRST_LAYERS = ("conv1.weight", "patch_embed.proj.weight", "conv_stem.weight", "stem.0.weight")
"""Names of the first convolution in timm's networks."""


@dataclass(frozen=True)
class TorchgeoWeights:
    """One of torchgeo's enums.

    Args:
        name: its name.
        url: address of the file.
        bands: the bands of the first layer in order, lower case; empty where torchgeo does not name them.
        mean_C: mean per band that the images are normalized by; None where torchgeo does not say.
        std_C: standard deviation that goes with it.
    """

    name: str
    url: str
    bands: tuple[str, ...]
    mean_C: NDArray[np.float64] | None = None
    std_C: NDArray[np.float64] | None = None

    def fetch(self) -> Path:
        """The file on this machine, downloaded once; its hash is checked by its name.

        Raises:
            OSError: when it cannot be downloaded, or another file came.
        """
        found = HASH.search(self.url)
        return fetch_url(self.url, f"torchgeo:{self.name}", None if found is None else found[1])

    def columns(self, wanted: Sequence[str] | None, thing: str) -> list[int] | None:
        """Positions of the wanted bands in the first layer; None to take it as it is.

        Args:
            wanted: names of the network's bands; None for red, green, blue.
            thing: name of the option; used in the error message.

        Raises:
            ConfigError: when the first layer lacks one of them.
        """
        if not self.bands:
            return None
        triples = [one for one in RGB if set(one) <= set(self.bands)]
        names = [band_name(name) for name in wanted] if wanted is not None else list(next(iter(triples), ()))
        missing = [name for name in names if name not in self.bands]
        if not names or missing:
            got = f"torchgeo:{self.name}, whose bands are {', '.join(self.bands).upper()}"
            lacking = ", ".join(missing).upper() or "red, green and blue"
            remedy = "Take other weights, or name data.bands by torchgeo's names."
            raise ConfigError(thing, f"must know the bands of the chips (not {lacking})", got, remedy)
        return [self.bands.index(name) for name in names]

    def statistics(self, columns: Sequence[int] | None) -> InputStatistics | None:
        """The images that red, green and blue in ``columns`` are expected as; None where nothing is known."""
        if self.mean_C is None or self.std_C is None:
            return None
        chosen = list(range(BANDS)) if columns is None else list(columns)
        if len(chosen) != BANDS:
            return None  # bands are normalized by their own statistics
        count = max(len(self.bands), BANDS)
        mean_C, std_C = (np.broadcast_to(one, count)[chosen] for one in (self.mean_C, self.std_C))
        scale = REFLECTANCE if max(mean_C.max(), std_C.max()) >= 1000 else BYTE
        mean, std = (tuple(float(x) for x in one) for one in (mean_C, std_C))
        return InputStatistics(mean, std, scale)  # type: ignore[arg-type]


def torchgeo_weights(name: str, thing: str) -> TorchgeoWeights:
    """The enum ``name``.

    Args:
        name: such as ``ResNet18_Weights.SENTINEL2_ALL_MOCO``.
        thing: name of the option that gave it; used in error messages.

    Raises:
        ConfigError: when torchgeo is not installed, or has no such enum (with the nearest names).
    """
    if find_spec("torchgeo") is None:
        need, remedy = "needs a package that is not installed", "pip install 'canopy-eo[torchgeo]'."
        raise ConfigError(thing, need, f"no torchgeo, for torchgeo:{name}", remedy)
    from torchgeo.models import get_model_weights, get_weight, list_models

    try:
        found: Any = get_weight(name)
    except ValueError:
        known = []
        for model in list_models():
            with suppress(KeyError):  # a network without weights
                known += [str(one) for one in get_model_weights(model)]
        need = "must name weights of torchgeo"
        raise ConfigError(thing, need, f"torchgeo:{name}", nearest(name, known)) from None
    bands = tuple(band_name(band) for band in found.meta.get("bands") or ())
    mean_C, std_C = normalization(found.transforms)
    return TorchgeoWeights(name, found.url, bands, mean_C, std_C)


def normalization(transforms: Any) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Mean and standard deviation that a chain of transforms normalizes by, all its steps together.

    Args:
        transforms: torchgeo's transforms; steps with ``mean`` and ``std`` are normalizations.

    Returns:
        Arrays of one value, or one per band; None and None without such a step.
    """
    parts = getattr(transforms, "transforms", transforms)
    steps = list(parts) if hasattr(parts, "__iter__") else [parts]
    found = [one for one in steps if hasattr(one, "mean") and hasattr(one, "std")]
    scale, offset = np.ones(1), np.zeros(1)  # y = scale * x + offset
    for step in found:
        mean, std = np.asarray(step.mean, np.float64), np.asarray(step.std, np.float64)
        scale, offset = scale / std, (offset - mean) / std
    return (0 - offset / scale, 1 / scale) if found else (None, None)


def band_name(name: str) -> str:
    """One spelling of a band: Sentinel-2's number for Canopy's words, no zero before it, lower case."""
    plain = SENTINEL2.get(name, name).lower()
    numbered = NUMBERED.fullmatch(plain)
    return plain if numbered is None else f"b{numbered[1]}"


def with_bands(file: WeightsFile, columns: Sequence[int] | None) -> WeightsFile:
    """A file whose first layer has only some bands, in their order; None takes it as it is."""
    name = next((one for one in FIRST_LAYERS if one in file.tensors), None)
    if columns is None or name is None:
        return file
    weight: Tensor = file.tensors[name]
    if weight.ndim != 4 or weight.shape[1] <= max(columns):
        return file  # matching says what is wrong
    chosen = {**file.tensors, name: weight[:, list(columns)].contiguous()}
    return replace(file, tensors=chosen)
