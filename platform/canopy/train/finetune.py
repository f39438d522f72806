"""What fine-tuning does before and after an epoch: input sizes, L2-SP, SWA, batch-norm statistics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from canopy.config import FinetuneConfig
from canopy.models.network import MultiLabelNetwork


@dataclass
class EpochHooks:
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
    def of(cls, finetune: FinetuneConfig, epochs: int, network: nn.Module) -> EpochHooks:
        """The hooks of a phase of ``epochs`` epochs over ``network``, which has no wrappers."""
        average = AveragedModel(network) if finetune.swa_epochs else None
        return cls(epochs, finetune.input_sizes, average, finetune.swa_epochs)

    def before_epoch(self, network: nn.Module, epoch: int) -> None:
        """Set the input size of ``epoch``, counted from 0 within the phase."""
        if self.input_sizes:
            number = min(epoch * len(self.input_sizes) // self.epochs, len(self.input_sizes) - 1)
            assert isinstance(network, MultiLabelNetwork)
            network.train_size = self.input_sizes[number]

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
    """Re-estimate the batch-norm statistics as the mean over ``batches`` of images (n, C, H, W).

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
