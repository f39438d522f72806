"""Weights on disk: safetensors files with text metadata, written atomically; nothing is unpickled."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from canopy.errors import RunDirError


def save_weights(model: nn.Module, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write every parameter and buffer of ``model`` to one safetensors file, atomically.

    Args:
        model: the network itself, not its DDP wrapper (whose names begin with ``module.``).
        path: local file; its directory is created.
        metadata: texts for the file's header.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    save_file(state, temporary, metadata=dict(metadata or {}))
    temporary.replace(path)


def load_weights(model: nn.Module, path: str | Path) -> dict[str, str]:
    """Load a file of :func:`save_weights` into ``model``; every name and shape must agree.

    Returns:
        The file's metadata.

    Raises:
        RunDirError: when the file is missing or damaged, or belongs to another network.
        OSError: when the disk fails.
    """
    path = Path(path)
    remedy = "Rebuild the model from the config in the directory of the weights, or remove the checkpoint."
    try:
        state = load_file(path)
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (FileNotFoundError, SafetensorError) as error:
        raise RunDirError(str(path), "must be a readable safetensors file", str(error), remedy) from error
    difference = first_difference(state, model.state_dict())
    if difference is not None:
        raise RunDirError(str(path), "must hold exactly the weights of this network", difference, remedy)
    model.load_state_dict(state)
    return metadata


def copy_weights(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights on the CPU in contiguous order (safetensors refuses channels_last)."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }


def first_difference(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """The first name or shape in which two sets of tensors differ, as a phrase; None without a difference."""
    for name, tensor in wanted.items():
        if name not in got:
            return f"no tensor {name}"
        if got[name].shape != tensor.shape:
            return f"{name} of shape {tuple(got[name].shape)} instead of {tuple(tensor.shape)}"
    extra = next((name for name in got if name not in wanted), None)
    return None if extra is None else f"an unknown tensor {extra}"


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a NaN or an infinite value; None without one."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return name
    return None
