"""The plain loop that the sweep is compared with: one training in this process, without checkpoints."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from canopy.config import VariantConfig
from canopy.data.catalogue import Catalogue
from canopy.data.loading.chip_source import ChipSource
from canopy.train.loop import train
from canopy.train.training_phase import DistributedContext, TrainingPhase
from canopy.train.training_records import TrainingPosition


def train_bare(
    variant: VariantConfig,
    catalogue: Catalogue,
    chips: ChipSource,
    scored_rows: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Train ``variant`` and return the logits (N, K) of its best epoch.

    Args:
        variant: the variant, swept values filled in.
        catalogue: rows, labels, splits.
        chips: decoded chips.
        scored_rows: rows to predict; None: none, shape (0, K).
    """
    torch.set_num_threads(variant.scale.threads_per_worker)
    context = DistributedContext(0, 1, torch.device("cpu"))
    phase = TrainingPhase(
        variant, catalogue, chips, context, catalogue.rows("train"), catalogue.rows("val", fold=0)
    )
    state, progress = phase.train_state(lambda network: network), TrainingPosition()
    train(
        state,
        phase.batches(0),
        phase.batch_sampler.steps_per_epoch,
        variant.optim,
        progress,
        evaluate=phase.evaluate,
        save_checkpoint=lambda _: None,
        on_step_end=lambda *_: None,
        name=variant.name,
        seed=variant.seed,
    )
    rows = np.empty(0, np.int64) if scored_rows is None else scored_rows
    state.eval_model.load_state_dict(state.best_weights)
    return phase.logits(state.eval_model, rows)
