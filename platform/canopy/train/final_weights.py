"""The weights that a phase ends with: averages and mixtures compete with those of the best epoch."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from canopy.config import FinetuneConfig
from canopy.models.weights import copy_weights
from canopy.train.finetune import reestimate_batch_norm
from canopy.train.loop import TrainState
from canopy.train.training_records import TrainingPosition, ValidationScores

MIXES = tuple(tenths / 10 for tenths in range(1, 10))
"""Shares of the final weights that WiSE-FT tries, besides 1."""

logger = logging.getLogger(__name__)


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
    if train_state.hooks.average is not None and int(train_state.hooks.average.n_averaged):
        averaged = copy.deepcopy(train_state.hooks.average.module)
        if finetune.batch_norm == "train":
            reestimate_batch_norm(averaged, calibration())
        compete("swa", averaged, copy_weights(averaged))
    if finetune.wise_ft:
        # When the probe's best epoch is still ahead, its backbone is the first one: nothing to mix with.
        own = progress.best_epoch > progress.phase_start
        final = dict(train_state.best_weights) if own else copy_weights(train_state.eval_model)
        network = copy.deepcopy(train_state.unwrapped)
        for share in MIXES:
            mixed = mix_weights(train_state.first_weights, final, share)
            network.load_state_dict(mixed)
            compete(f"wise_ft {share:g}", network, mixed)
    if scores:
        logger.info("weights by validation score: %s", ", ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    return scores
