"""Tensors in files of weights: safetensors, or PyTorch's own format where it holds plain tensors only.

A PyTorch file is a pickle. It is read by torch's restricted unpickler (``weights_only=True``), which builds
tensors and containers and refuses everything that could run code.
"""

from __future__ import annotations

import json
import pickletools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from canopy.errors import ConfigError
from canopy.models.weights import first_not_finite

FORMATS = "must be a safetensors file, or a PyTorch file of plain tensors"
NESTED = ("state_dict_ema", "model_ema", "state_dict", "model", "network", "teacher", "student")
"""Keys under which training programs keep the tensors of their network, the averaged ones first (as timm)."""
NAMED = 3
"""Objects in a pickle that the error message names."""
HALF = "Convert it: save each tensor as float32 (tensor.float())."


@dataclass(frozen=True)
class WeightsFile:
    """The content of a file of weights."""

    tensors: dict[str, Tensor]
    """Tensors by their names in the file."""
    ordered: bool
    """Whether they come in the order of the network's layers; a safetensors file is sorted by name."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Texts in the header of a safetensors file."""


def read_weights_file(path: Path, thing: str, location: str) -> WeightsFile:
    """Read a local file of weights.

    Args:
        path: the file.
        thing: name of the option that gave it; used in error messages.
        location: the file as the user knows it; used in error messages.

    Raises:
        ConfigError: when it is no such file, is cut off, holds code, tensors of half precision or values that
            are not finite.
        OSError: when it cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(16)
    found = _safetensors(path, thing, location) if head[8:9] == b"{" else _pytorch(path, thing, location)
    for name, tensor in found.tensors.items():
        if tensor.is_quantized or (tensor.is_floating_point() and tensor.dtype != torch.float32):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ConfigError(
                thing, "must hold weights in float32", f"{location} with {name} in {kind}", HALF
            )
    if (damaged := first_not_finite(found.tensors)) is not None:
        got = f"{location} with NaN or an infinite value in {damaged}"
        raise ConfigError(
            thing, "must hold finite weights", got, "Take a checkpoint from before it diverged."
        )
    return found


def read_metadata(data: bytes) -> dict[str, str]:
    """The texts in the header of a safetensors file; of ``data``, only the header is read."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found: dict[str, str] = header.get("__metadata__", {})
    return found


def _safetensors(path: Path, thing: str, location: str) -> WeightsFile:
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        remedy = "Copy or download it again."
        raise ConfigError(thing, FORMATS, f"{location} ({error})", remedy) from error
    with path.open("rb") as stream:
        head = stream.read(8)
        return WeightsFile(tensors, False, read_metadata(head + stream.read(int.from_bytes(head, "little"))))


def _pytorch(path: Path, thing: str, location: str) -> WeightsFile:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises errors of many kinds
        if (code := _code_in(path)) is not None:
            problem = (
                "must hold plain tensors: a pickle that names other objects can run code when it is read"
            )
            remedy = "Save the state dict alone, from a place that you trust, best as safetensors."
            raise ConfigError(thing, problem, f"{location} with {code}", remedy) from None
        reason = (
            str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        )
        remedy = "Check that it is complete, or take the weights as safetensors."
        raise ConfigError(thing, FORMATS, f"{location} ({reason})", remedy) from None
    tensors = _tensors_in(content)
    if not tensors:
        got = f"{location} with {type(content).__name__} without tensors"
        raise ConfigError(thing, "must hold a state dict", got, "Save network.state_dict() alone.")
    return WeightsFile(tensors, True)


def _tensors_in(content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, or of the one that a training program keeps under a usual name."""
    if not isinstance(content, Mapping):
        return {}
    for key in NESTED:
        if isinstance(content.get(key), Mapping):
            return _tensors_in(content[key])
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _code_in(path: Path) -> str | None:
    """The first objects that a pickle names and torch refuses, found without running it; None without."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # no zip archive: an older format, any other pickle, or damaged
        names = [name for name in _names_in(path) if not name.startswith(("torch.", "collections."))]
    return ", ".join(names[:NAMED]) or None


def _names_in(path: Path) -> list[str]:
    """The objects that a bare pickle names, as far as it can be disassembled."""
    names: list[str] = []
    texts = ["", ""]
    try:
        with path.open("rb") as stream:
            for code, argument, _ in pickletools.genops(stream):
                if code.name == "GLOBAL":
                    names.append(str(argument).replace(" ", "."))
                elif code.name == "STACK_GLOBAL":
                    names.append(".".join(texts[-2:]))
                elif isinstance(argument, str):
                    texts.append(argument)
    except Exception:  # no pickle, or cut off
        return names
    return names
