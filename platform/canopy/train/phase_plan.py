"""Which phases a variant trains (probe, whole network, classifier alone), and each one's initial state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from canopy.config import FinetuneConfig, VariantConfig, derive
from canopy.models.lora import add_lora, has_lora
from canopy.models.network import MultiLabelNetwork, parameter_groups
from canopy.models.weights import copy_weights
from canopy.train.classifier_retraining import CLASS_BALANCED, SEED_STEP, best_network
from canopy.train.finetune import EpochHooks, decay_towards_first_weights
from canopy.train.loop import TrainState, make_train_state
from canopy.train.schedule import group_schedules

PROBE_SEED_STEP = 20_011
"""The difference between the seeds of the whole network's phase and of the probe."""
NO_BACKBONE_CRAFT: dict[str, Any] = {
    "unfreeze_epochs": 0,
    "l2_sp": 0.0,
    "wise_ft": False,
    "input_sizes": (),
    "swa_epochs": 0,
    "lora_rank": 0,
}
"""Fine-tuning options that a probe has no use for."""


PhaseKind = Literal["probe", "whole", "classifier"]
"""What a phase trains: the head on stored features, the whole network, the classifier on balanced chips."""


@dataclass(frozen=True)
class Phase:
    """One phase of a training.

    Args:
        kind: what it trains.
        variant: the training's variant with the settings of the phase.
    """

    kind: PhaseKind
    variant: VariantConfig


def training_phases(variant: VariantConfig) -> list[Phase]:
    """The phases of ``variant`` in order.

    The probe comes first: Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform
    Out-of-Distribution", ICLR 2022. The last phase is classifier re-training, Kang et al., "Decoupling
    Representation and Classifier for Long-Tailed Recognition", ICLR 2020: class-balanced sampling. Each has
    its own warm-up, cosine decay and patience. All other settings are those of the variant.
    """
    finetune, optim = variant.finetune, variant.optim
    phases: list[Phase] = []
    if finetune.has_probe:
        lr = finetune.probe_lr or optim.lr
        probe = derive(optim, epochs=finetune.probe_epochs, rebalance_epochs=0, lr=lr, ema_decay=0.0)
        plain = derive(finetune, method="probe", **NO_BACKBONE_CRAFT)
        phases.append(
            Phase("probe", derive(variant, optim=probe, finetune=plain, seed=variant.seed + PROBE_SEED_STEP))
        )
    if finetune.method != "probe":
        phases.append(Phase("whole", variant))
    if optim.rebalance_epochs:
        second = derive(optim, epochs=optim.rebalance_epochs, rebalance_epochs=0)
        changes = {"optim": second, "sampling": CLASS_BALANCED, "seed": variant.seed + SEED_STEP}
        phases.append(Phase("classifier", derive(variant, finetune=FinetuneConfig(), **changes)))
    return phases


def planned_epochs(phases: Sequence[Phase]) -> int:
    """Number of epochs of ``phases``, if patience does not run out."""
    return sum(phase.variant.optim.epochs for phase in phases)


def fine_tuning_state(
    network: MultiLabelNetwork,
    wrap: Callable[[nn.Module], nn.Module],
    loss: nn.Module,
    variant: VariantConfig,
    steps_per_epoch: int,
    keep_head: bool,
) -> TrainState:
    """The state at the start of a phase of ``variant`` that trains ``network``, which has no wrappers yet.

    Args:
        network: the network with the weights that it starts from; what is not trained is frozen here.
        wrap: wraps a network for training, in DDP where there are other ranks.
        loss: maps logits (N, K) and targets (N, K) to a scalar mean.
        variant: settings of the phase.
        steps_per_epoch: number of optimizer steps per epoch.
        keep_head: whether the head has been trained already, so that its first weights are worth keeping.
    """
    optim, finetune = variant.optim, variant.finetune
    if optim.backbone_lr_factor == 0:
        network.freeze_backbone(attention=False)
    if finetune.lora_rank:
        add_lora(network.backbone, finetune.lora_rank, finetune.lora_alpha)
    if finetune.batch_norm != "train":
        network.freeze_batch_norm()
    rates = (optim.lr, optim.weight_decay, optim.backbone_lr_factor, optim.layer_decay)
    groups = parameter_groups(network, *rates, by_layer=finetune.unfreeze_epochs > 0)
    schedules = group_schedules(groups, optim, finetune, steps_per_epoch)
    state = make_train_state(wrap(network), loss, groups, optim, optim.epochs * steps_per_epoch, schedules)
    state.hooks = EpochHooks.of(finetune, optim.epochs, network)
    if finetune.l2_sp:
        own = [p for name, p in network.named_parameters() if is_pretrained(name)]
        decay_towards_first_weights(state.optimizer, own, finetune.l2_sp)
    if finetune.wise_ft:
        buffers = {name for name, _ in network.named_buffers()} if finetune.batch_norm != "train" else set()
        state.first_weights = {
            name: tensor
            for name, tensor in copy_weights(network).items()
            if (keep_head or is_pretrained(name)) and name not in buffers
        }
    return state


def is_pretrained(name: str) -> bool:
    """Whether a tensor of a network belongs to timm's backbone, not to attention or the head."""
    return name.startswith("backbone.") and ".cbam." not in name


def after_probe(previous: TrainState, make: Callable[[MultiLabelNetwork], TrainState]) -> TrainState:
    """The state at the start of the phase after a probe: its best weights, everything trained.

    Args:
        previous: state of the probe. Without best weights (a restart within this phase, whose weights are
            loaded afterwards) its current weights are used.
        make: makes the state of the phase for an unwrapped network.
    """
    network = best_network(previous)
    network.unfreeze_backbone()
    state = make(network)
    # LoRA gives the tensors other names, not other values.
    renamed = previous.best_weights and has_lora(network)
    state.best_weights = copy_weights(network) if renamed else previous.best_weights
    return state
