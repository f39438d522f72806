"""The phases of a training: the variant itself, then, where it asks for it, its classifier anew (cRT)."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import nn

from canopy.config import OptimConfig, SamplingConfig, VariantConfig, derive
from canopy.models.classifier import Classifier, parameter_groups
from canopy.models.heads import restart
from canopy.train.loop import TrainState, make_train_state

BALANCED = SamplingConfig(name="weighted", power=1.0)
SEED_STEP = 10_007
"""Between the phases' seeds, so that the second does not meet the first one's batches again."""


def phases_of(variant: VariantConfig) -> list[VariantConfig]:
    """What is trained one after the other, each phase as a variant of its own.

    The second phase is classifier re-training, Kang et al., "Decoupling Representation and Classifier for
    Long-Tailed Recognition", ICLR 2020: class-balanced sampling, its own warm-up and cosine, and
    ``patience`` counted afresh. All else is the variant's.
    """
    if not variant.optim.rebalance_epochs:
        return [variant]
    optim = derive(variant.optim, epochs=variant.optim.rebalance_epochs, rebalance_epochs=0)
    again = derive(variant, optim=optim, sampling=BALANCED, seed=variant.seed + SEED_STEP)
    return [variant, again]


def retrain_head(
    train_state: TrainState,
    wrap: Callable[[nn.Module], nn.Module],
    rates_K: NDArray[np.floating],
    loss: nn.Module,
    config: OptimConfig,
    total_steps: int,
) -> TrainState:
    """The learner of the second phase: the best weights so far, backbone frozen, classifier drawn anew.

    It starts at the log-odds of the rates that its balanced batches show, not at those of the data: from the
    latter it would first have to learn the difference. So its probabilities are too high for rare labels;
    the ensemble calibrates each member, and both scores that select (mAP and macro-F1 at each class's best
    threshold) only see the order of a class's probabilities. Hence epochs of both phases compete for
    ``best`` on one score, and a second phase that helps nobody leaves the first one's weights.

    Args:
        learner: of the first phase; without a best epoch (a restart within the second phase, whose
            weights are still to be loaded) its weights are taken as they are.
        wrap: into DDP, where there are ranks. The network is a copy, since the first wrapper's hooks stay
            on the parameters that it was given; the new one sees what is frozen and does not wait for it.
        rates_K: what the new classifier predicts at first, of shape (K,).
        loss: made for the balanced batches.
        config: of the second phase.
        total_steps: of the second phase.
    """
    network = copy.deepcopy(train_state.unwrapped)
    assert isinstance(network, Classifier)
    if train_state.best:
        network.load_state_dict(train_state.best)
    network.freeze_backbone()
    restart(network.head, rates_K)
    groups = parameter_groups(network, config.lr, config.weight_decay)
    again = make_train_state(wrap(network), loss, groups, config, total_steps)
    again.best = train_state.best
    return again
