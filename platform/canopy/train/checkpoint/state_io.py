"""A training cut off and taken up again: safetensors and JSON, nothing unpickled.

::

    model.safetensors      the newest weights
    average.safetensors    their moving average, where there is one
    best.safetensors       the weights of the best epoch so far
    optimizer.safetensors  AdamW's moments, named PARAMETER.NAME
    progress.json          epochs and steps done, phase, best score, history, the schedule's position
    config.json            the variant's config
    labels.json            the ordered label names
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from canopy.config import VariantConfig
from canopy.labels import LabelSet
from canopy.models.weights import load_weights, save_weights
from canopy.train.epoch_metrics import EpochTotals
from canopy.train.loop import Progress, TrainState


def save_checkpoint(
    directory: Path, train_state: TrainState, progress: Progress, variant: VariantConfig, labels: LabelSet
) -> None:
    """Write everything that a restart needs into ``directory``, which exists."""
    save_weights(train_state.unwrapped, directory / "model.safetensors")
    if train_state.model_ema is not None:
        save_weights(train_state.model_ema, directory / "average.safetensors")
    save_file(train_state.best, directory / "best.safetensors")
    save_file(optimizer_tensors(train_state.optimizer), directory / "optimizer.safetensors")
    state = {"progress": asdict(progress), "schedule": train_state.schedule.state_dict()}
    if not math.isfinite(progress.best_score):
        state["progress"]["best_score"] = None  # no epoch is through yet, and JSON has no infinity
    del state["schedule"]["lr_lambdas"]  # functions; the learner that loads has its own
    write(directory / "progress.json", state)
    write(directory / "config.json", variant.model_dump(mode="json"))
    write(directory / "labels.json", list(labels.names))


def load_checkpoint(directory: Path, train_state: TrainState, device: torch.device) -> Progress:
    """Fill ``learner`` from ``directory`` and return how far it had come.

    Raises:
        RunDirError: when the weights belong to another network.
    """
    load_weights(train_state.unwrapped, directory / "model.safetensors")
    if train_state.model_ema is not None:
        load_weights(train_state.model_ema, directory / "average.safetensors")
    train_state.best = load_file(directory / "best.safetensors")
    restore_optimizer(
        train_state.optimizer, load_file(directory / "optimizer.safetensors", device=str(device))
    )
    state = json.loads((directory / "progress.json").read_text())
    functions = [None] * len(train_state.optimizer.param_groups)
    train_state.schedule.load_state_dict({**state["schedule"], "lr_lambdas": functions})
    # A schedule sets the rates only when it next steps; the first step after a restart needs them before.
    for group, lr in zip(train_state.optimizer.param_groups, train_state.schedule.get_last_lr(), strict=True):
        group["lr"] = lr
    return read_progress(directory)


def read_progress(directory: Path) -> Progress:
    """How far the training of this checkpoint had come."""
    state = json.loads((directory / "progress.json").read_text())["progress"]
    if state["best_score"] is None:
        del state["best_score"]
    return Progress(**state | {"so_far": EpochTotals(**state.get("so_far", {}))})


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors; parameters count up over the groups."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for index, values in state.items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Undo :func:`optimizer_tensors`; the learning rates of the groups stay as they are.

    Moments take the memory order of their parameter again: the fused AdamW walks through both side by side
    and does not look at strides, so in plain order beside channels-last it would mix up their elements.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        ordered = torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
        state.setdefault(int(index), {})[name] = ordered
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def write(path: Path, value: Any) -> None:
    """JSON, readable by a person."""
    path.write_text(json.dumps(value, indent=1, allow_nan=False))
