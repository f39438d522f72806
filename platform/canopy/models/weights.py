"""Weights on disk: safetensors with text metadata, written atomically; nothing is ever unpickled."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_bytes
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from canopy.errors import ConfigError, RunDirError


def save_weights(model: nn.Module, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write every parameter and buffer of ``model`` to one safetensors file, beside first, then renamed.

    Args:
        model: the network itself, not its DDP wrapper (whose names begin with ``module.``).
        path: a local file; its directory is made.
        metadata: texts kept in the file's header.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    save_file(state, beside, metadata=dict(metadata or {}))
    beside.replace(path)


def load_weights(model: nn.Module, path: str | Path) -> dict[str, str]:
    """Fill ``model`` from a file of :func:`save_weights`; every name and shape must agree.

    Returns:
        The file's metadata.

    Raises:
        RunDirError: when the file is missing, damaged, or made by another network.
    """
    path = Path(path)
    remedy = "Rebuild the model from the config that lies beside the weights, or remove the checkpoint."
    try:
        state = load_file(path)
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise RunDirError(str(path), "must be a readable safetensors file", str(error), remedy) from error
    difference = first_difference(state, model.state_dict())
    if difference is not None:
        raise RunDirError(str(path), "must hold exactly the weights of this network", difference, remedy)
    model.load_state_dict(state)
    return metadata


def read_weights(location: str, thing: str = "model.weights") -> dict[str, Tensor]:
    """The tensors of a safetensors file at a local path or a URI (``s3://``, ``gs://``, ``file://``).

    Raises:
        ConfigError: when nothing can be read there, or it is not a safetensors file.
    """
    remedy = "Check the address and the permissions; convert pickled .pt or .pth files to safetensors first."
    try:
        if "://" not in location:
            return load_file(Path(location))
        filesystem, path = pafs.FileSystem.from_uri(location)
        with filesystem.open_input_file(path) as stream:
            return load_bytes(stream.read())
    except (OSError, SafetensorError, pa.ArrowException) as error:
        problem = "must be the path or URI of a safetensors file"
        raise ConfigError(thing, problem, f"{location} ({error})", remedy) from error


def first_difference(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """The first name or shape in which two sets of tensors differ, as a phrase; None when there is none."""
    for name, tensor in wanted.items():
        if name not in got:
            return f"no tensor {name}"
        if got[name].shape != tensor.shape:
            return f"{name} of shape {tuple(got[name].shape)} instead of {tuple(tensor.shape)}"
    extra = next((name for name in got if name not in wanted), None)
    return None if extra is None else f"an unknown tensor {extra}"
