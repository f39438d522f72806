"""The files of a checkpoint: safetensors and JSON, nothing pickled.

::

    model.safetensors      the newest weights
    average.safetensors    their moving average, where there is one
    best.safetensors       the weights of the best completed epoch
    swa.safetensors        the mean over the last epochs, where there is one
    first.safetensors      the weights at the start of the phase, where its end needs them
    optimizer.safetensors  AdamW's moments, named PARAMETER.NAME
    progress.json          epochs and steps done, phase, best score, history, state of the schedule
    config.json            the variant's config
    labels.json            the ordered label names
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from canopy.config import VariantConfig
from canopy.errors import RunDirError
from canopy.labels import LabelSet
from canopy.models.weights import load_weights, save_weights
from canopy.train.loop import TrainState
from canopy.train.training_records import TrainingPosition

REMEDY = "Remove the checkpoint; the training then resumes from an earlier one, or starts again."


@dataclass(frozen=True)
class ResumeState:
    """The content of a checkpoint's ``progress.json``."""

    progress: TrainingPosition
    lr_scheduler: dict[str, Any]
    """State of the schedule as in torch, without ``lr_lambdas``."""

    def to_json(self) -> dict[str, Any]:
        """The state as a JSON object."""
        return {"progress": self.progress.to_json(), "schedule": self.lr_scheduler}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Undo :meth:`to_json`."""
        return cls(TrainingPosition.from_json(value["progress"]), value.get("schedule", {}))


def save_checkpoint(
    directory: Path,
    train_state: TrainState,
    progress: TrainingPosition,
    variant: VariantConfig,
    labels: LabelSet,
) -> None:
    """Write everything that a restart needs into ``directory``, which exists.

    Raises:
        OSError: when a file cannot be written (``SafetensorError`` for the files of tensors).
    """
    save_weights(train_state.unwrapped, directory / "model.safetensors")
    if train_state.model_ema is not None:
        save_weights(train_state.model_ema, directory / "average.safetensors")
    if train_state.hooks.average is not None:
        save_weights(train_state.hooks.average, directory / "swa.safetensors")
    if train_state.first_weights:
        save_file(train_state.first_weights, directory / "first.safetensors")
    save_file(train_state.best_weights, directory / "best.safetensors")
    save_file(optimizer_tensors(train_state.optimizer), directory / "optimizer.safetensors")
    schedule = train_state.lr_scheduler.state_dict()
    del schedule["lr_lambdas"]  # functions; the receiving scheduler already has them
    write_json(directory / "progress.json", ResumeState(progress, schedule).to_json())
    write_json(directory / "config.json", variant.model_dump(mode="json"))
    write_json(directory / "labels.json", list(labels.names))


def load_checkpoint(directory: Path, train_state: TrainState, device: torch.device) -> TrainingPosition:
    """Load ``directory`` into ``train_state`` and return the progress.

    Args:
        directory: a directory of :func:`save_checkpoint`.
        train_state: state of the same phase of the same variant; changed in place.
        device: device of the optimizer's moments.

    Raises:
        RunDirError: when a file is missing or damaged, or the weights belong to another network.
        OSError: when the disk fails, which a restart may not meet again.
    """
    load_weights(train_state.unwrapped, directory / "model.safetensors")
    if train_state.model_ema is not None:
        load_weights(train_state.model_ema, directory / "average.safetensors")
    if train_state.hooks.average is not None:
        load_weights(train_state.hooks.average, directory / "swa.safetensors")
    if train_state.first_weights:
        train_state.first_weights = read_tensors(directory / "first.safetensors")
    train_state.best_weights = read_tensors(directory / "best.safetensors")
    restore_optimizer(train_state.optimizer, read_tensors(directory / "optimizer.safetensors", device))
    state = read_resume_state(directory)
    functions = [None] * len(train_state.optimizer.param_groups)
    train_state.lr_scheduler.load_state_dict({**state.lr_scheduler, "lr_lambdas": functions})
    # The schedule sets the learning rates at its next step; the first step after a restart needs them before.
    rates = train_state.lr_scheduler.get_last_lr()
    for group, lr in zip(train_state.optimizer.param_groups, rates, strict=True):
        group["lr"] = lr
    return state.progress


def read_progress(directory: Path) -> TrainingPosition:
    """The progress in a checkpoint.

    Raises:
        RunDirError: when its file is missing or damaged.
    """
    return read_resume_state(directory).progress


def read_resume_state(directory: Path) -> ResumeState:
    """The content of a checkpoint's ``progress.json``.

    Raises:
        RunDirError: when the file is missing or damaged.
    """
    path = directory / "progress.json"
    try:
        return ResumeState.from_json(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunDirError(str(path), "must be the progress of a checkpoint", error, REMEDY) from error


def read_tensors(path: Path, device: torch.device | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        RunDirError: when the file is missing or damaged.
    """
    try:
        return load_file(path, device=str(device or "cpu"))
    except (FileNotFoundError, SafetensorError) as error:
        raise RunDirError(str(path), "must be a readable safetensors file", error, REMEDY) from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as tensors named PARAMETER.NAME; parameters are numbered over all groups."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for index, values in state.items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Undo :func:`optimizer_tensors`; the learning rates of the groups stay unchanged."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        # Moments need the memory order of their parameter: the fused AdamW ignores strides, so moments in
        # contiguous order for a channels-last parameter would be assigned to the wrong elements.
        ordered = torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
        state.setdefault(int(index), {})[name] = ordered
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def write_json(path: Path, value: Any) -> None:
    """Write JSON that people can read.

    Raises:
        ValueError: when a number is not finite.
    """
    path.write_text(json.dumps(value, indent=1, allow_nan=False))
