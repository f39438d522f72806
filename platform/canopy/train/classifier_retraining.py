"""The last phase of a training, where there is one: the classifier again, on balanced chips (cRT)."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import nn

from canopy.config import OptimConfig, SamplingConfig
from canopy.models.heads import reset_classifier
from canopy.models.network import MultiLabelNetwork, parameter_groups
from canopy.train.loop import TrainState, make_train_state

CLASS_BALANCED = SamplingConfig(name="weighted", power=1.0)
SEED_STEP = 10_007
"""Difference between the seeds of the phases, so that this one draws other batches than the first."""


def best_network(train_state: TrainState) -> MultiLabelNetwork:
    """A copy of the network of a phase with its best weights, or with its current ones where it has none."""
    # A copy, because the hooks of the first DDP wrapper stay on its parameters. The new wrapper sees which
    # parameters are frozen and does not wait for their gradients.
    network = copy.deepcopy(train_state.unwrapped)
    assert isinstance(network, MultiLabelNetwork)
    network.train_size = None
    if train_state.best_weights:
        network.load_state_dict(train_state.best_weights)
    return network


def retrain_classifier(
    train_state: TrainState,
    wrap: Callable[[nn.Module], nn.Module],
    rates_K: NDArray[np.floating],
    loss: nn.Module,
    config: OptimConfig,
    total_steps: int,
) -> TrainState:
    """The state at the start of the second phase: best weights, backbone frozen, classifier redrawn.

    The classifier starts at the log-odds of the label rates in its balanced batches. Starting at the rates of
    the data would waste its first steps on the difference. Its probabilities are therefore too high for rare
    labels; the ensemble calibrates each member. The two scores that select an epoch (mAP and macro-F1 at each
    class's best threshold) depend only on the order of a class's probabilities. So the epochs of both phases
    are compared by one score. If the second phase does not improve it, the weights of the first are kept.

    Args:
        train_state: state of the first phase. Without best weights (a restart within the second phase, whose
            weights are loaded afterwards) its current weights are used.
        wrap: wraps a network for training, in DDP where there are other ranks.
        rates_K: label rates that the new classifier predicts at first, shape (K,).
        loss: loss for the balanced batches.
        config: optimizer settings of the second phase.
        total_steps: number of steps of the second phase.
    """
    network = best_network(train_state)
    network.freeze_backbone()
    reset_classifier(network.head, rates_K)
    groups = parameter_groups(network, config.lr, config.weight_decay)
    second = make_train_state(wrap(network), loss, groups, config, total_steps)
    second.best_weights = train_state.best_weights
    return second
