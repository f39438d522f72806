"""Fine-tuning craft around the training loop: L2-SP, averages of weights, batch-norm statistics."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from canopy.config import FinetuneConfig
from canopy.models.weights import copy_weights
from canopy.train.training_records import TrainingPosition, ValidationScores

if TYPE_CHECKING:
    from canopy.train.loop import TrainState

MIXES = tuple(tenths / 10 for tenths in range(1, 10))
"""Shares of the final weights that WiSE-FT tries, besides 1."""

logger = logging.getLogger(__name__)


@dataclass
class EpochCraft:
    """What a phase does before and after each epoch. The default does nothing.

    Args:
        epochs: number of epochs of the phase.
        input_sizes: sides of the input that the epochs are divided among; empty for one size.
        average: mean of the weights after each of the last epochs (SWA); None without it.
        averaged_epochs: number of those epochs.
    """

    epochs: int = 1
    input_sizes: tuple[int, ...] = ()
    average: AveragedModel | None = None
    averaged_epochs: int = 0

    @classmethod
    def of(cls, finetune: FinetuneConfig, epochs: int, network: nn.Module) -> EpochCraft:
        """The craft of a phase of ``epochs`` epochs over ``network``, which has no wrappers."""
        average = AveragedModel(network) if finetune.swa_epochs else None
        return cls(epochs, finetune.input_sizes, average, finetune.swa_epochs)

    def before_epoch(self, network: nn.Module, epoch: int) -> None:
        """Set the input size of ``epoch``, counted from 0 within the phase."""
        if self.input_sizes:
            number = min(epoch * len(self.input_sizes) // self.epochs, len(self.input_sizes) - 1)
            network.train_size = self.input_sizes[number]  # a field of MultiLabelNetwork

    def after_epoch(self, network: nn.Module, epoch: int) -> None:
        """Add the weights to the average, if ``epoch`` is one of the last."""
        if self.average is not None and epoch >= self.epochs - self.averaged_epochs:
            self.average.update_parameters(network)


def decay_towards_first_weights(
    optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], strength: float
) -> None:
    """Replace the weight decay of ``parameters`` by L2-SP, in the decoupled form of AdamW.

    Before each step w becomes w - lr * strength * (w - w0), where w0 is the value now. Li, Grandvalet and
    Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", ICML 2018.

    Args:
        optimizer: changed in place; a group holds either only such parameters or none.
        parameters: those of the backbone.
        strength: the decay.
    """
    first = {parameter: parameter.detach().clone() for parameter in parameters if parameter.requires_grad}
    for group in optimizer.param_groups:
        if all(parameter in first for parameter in group["params"]):
            group["weight_decay"] = 0.0

    def pull(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        with torch.no_grad():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter in first and parameter.grad is not None:
                        parameter.lerp_(first[parameter], group["lr"] * strength)

    optimizer.register_step_pre_hook(pull)


def drop_gradients_of_frozen_groups(optimizer: torch.optim.Optimizer) -> None:
    """Forget the gradients of groups whose learning rate is 0: no clipping by them, no moments from them."""
    for group in optimizer.param_groups:
        if group["lr"] == 0:
            for parameter in group["params"]:
                parameter.grad = None


def reestimate_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Measure the batch-norm statistics anew, as the mean over ``batches`` of images (n, C, H, W).

    Everything else is in evaluation mode meanwhile; afterwards every module is in its former mode.
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return
    modes = {module: module.training for module in network.modules()}
    momenta = [layer.momentum for layer in layers]
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over all batches
        layer.train()
    with torch.no_grad():
        for images_NCHW in batches:
            network(images_NCHW)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    for module, mode in modes.items():
        module.training = mode


def mix_weights(first: Mapping[str, Tensor], final: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """``share`` of ``final``, the rest of ``first``; counts, and what ``first`` lacks, as in ``final``."""
    return {
        name: torch.lerp(first[name], tensor, share)
        if name in first and tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in final.items()
    }


def choose_final_weights(
    train_state: TrainState,
    progress: TrainingPosition,
    finetune: FinetuneConfig,
    evaluate: Callable[[nn.Module], ValidationScores],
    calibration: Callable[[], Iterable[Tensor]],
) -> dict[str, float]:
    """Let averages of weights compete with those of the best epoch; the best by validation score are kept.

    All ranks must call it.

    Args:
        train_state: the state at the end of a phase; its best weights may change.
        progress: its best score changes with them.
        finetune: which averages to try.
        evaluate: evaluates a network; returns the same scores on every rank.
        calibration: training images, for the batch-norm statistics of averaged weights.

    Returns:
        The validation score of each candidate by name, empty without candidates.
    """
    scores: dict[str, float] = {}

    def compete(name: str, network: nn.Module, weights: Mapping[str, Tensor]) -> None:
        scores[name] = evaluate(network).score
        if scores[name] > progress.best_score:
            progress.best_score, progress.best_epoch = scores[name], progress.epoch
            train_state.best_weights = dict(weights)

    if (finetune.swa_epochs or finetune.wise_ft) and progress.best_epoch:
        scores[f"epoch {progress.best_epoch}"] = progress.best_score
    if train_state.craft.average is not None and int(train_state.craft.average.n_averaged):
        averaged = copy.deepcopy(train_state.craft.average.module)
        if finetune.batch_norm == "train":
            reestimate_batch_norm(averaged, calibration())
        compete("swa", averaged, copy_weights(averaged))
    if finetune.wise_ft:
        final, network = dict(train_state.best_weights), copy.deepcopy(train_state.unwrapped)
        for share in MIXES:
            mixed = mix_weights(train_state.first_weights, final, share)
            network.load_state_dict(mixed)
            compete(f"wise_ft {share:g}", network, mixed)
    if scores:
        logger.info("weights by validation score: %s", ", ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    return scores
