"""Scoring a network: every row once, over any number of ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve
from torch import Tensor, nn

from canopy import metrics
from canopy.config import OptimConfig
from canopy.errors import DataError
from canopy.train.epoch_metrics import is_distributed

Symmetries = Literal["none", "flips", "d4"]
Scored = tuple[NDArray[np.int64], NDArray[np.float32]]


@torch.inference_mode()
def logits_of(
    network: nn.Module,
    batches: Iterable[tuple[NDArray[np.int64], Tensor]],
    labels: int,
    config: OptimConfig,
    tta: Symmetries = "none",
) -> Scored:
    """Rows (n,) and logits (n, K) of this rank's batches of row numbers and normalised images.

    With ``tta`` they are the mean *logits* over the symmetries of each chip: the logit of the geometric mean
    of the odds. What is stored stays a logit, as calibration expects; a mean of probabilities would draw
    confident answers towards 0.5 and could not be told from one that is unsure.
    """
    network.eval()
    rows, logits = [np.empty(0, np.int64)], [np.empty((0, labels), np.float32)]
    for rows_n, images_NCHW in batches:
        with torch.autocast(images_NCHW.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            views = [network(view).float() for view in symmetries(images_NCHW, tta)]
        rows.append(rows_n)
        logits.append((sum(views) / len(views)).cpu().numpy())
    return np.concatenate(rows), np.concatenate(logits)


def symmetries(images_NCHW: Tensor, tta: Symmetries) -> Iterator[Tensor]:
    """The images themselves, their four flips, or their eight symmetries (they must be square)."""
    turns = (0, 1) if tta == "d4" else (0,)
    flips: tuple[tuple[int, ...], ...] = ((),) if tta == "none" else ((), (2,), (3,), (2, 3))
    for turn in turns:
        turned_NCHW = torch.rot90(images_NCHW, turn, (2, 3)) if turn else images_NCHW
        yield from (torch.flip(turned_NCHW, flip) if flip else turned_NCHW for flip in flips)


def gathered(part: Scored, expected_rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The logits of all ranks in the order of ``expected_rows``, on every rank.

    Each expected row must have come exactly once: a stream that drops or repeats rows is our own bug,
    and an average over the wrong rows would hide it.
    """
    parts: list[Any] = [part]
    if is_distributed():
        parts = [None] * dist.get_world_size()
        dist.all_gather_object(parts, part)
    rows = np.concatenate([rows for rows, _ in parts])
    logits = np.concatenate([logits for _, logits in parts])
    order = np.argsort(rows, kind="stable")
    wanted = np.argsort(expected_rows, kind="stable")
    assert np.array_equal(rows[order], expected_rows[wanted]), "evaluation lost or repeated rows"
    out = np.empty_like(logits)
    out[wanted] = logits[order]
    return out


def share_buffers(network: nn.Module) -> None:
    """Give every rank rank 0's buffers (batch-norm statistics), so that all score the same network."""
    if is_distributed():
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def best_f1(targets_NK: NDArray[np.uint8], probs_NK: NDArray[np.float32]) -> NDArray[np.float64]:
    """Each class's highest F1 over all thresholds, shape (K,), NaN without positives.

    Optimistic, since the threshold is chosen on the rows it is scored on: good for comparing epochs of one
    network, never for reporting.
    """
    best_K = np.full(targets_NK.shape[1], np.nan)
    for k in np.flatnonzero(targets_NK.any(0)):
        precision, recall, _ = precision_recall_curve(targets_NK[:, k], probs_NK[:, k])
        best_K[k] = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    return best_K


def selection_scores(
    targets_NK: NDArray[np.uint8], logits_NK: NDArray[np.float32], select_by: str
) -> dict[str, float]:
    """The validation figures of an epoch; ``score`` is the one that selects.

    Classes without positives are left out of both means.

    Raises:
        DataError: when no class has any.
    """
    if not targets_NK.any():
        raise DataError(
            "The validation rows that select an epoch",
            "must hold at least one positive label",
            f"none in {len(targets_NK)} rows",
            "Raise data.val_fraction, or check the label table.",
        )
    probs_NK = sigmoid(logits_NK)
    scores = {
        "val_map": metrics.mean_average_precision(targets_NK, probs_NK),
        "val_macro_f1": float(np.nanmean(best_f1(targets_NK, probs_NK))),
    }
    return {"score": scores[f"val_{select_by}"], **scores}


def sigmoid(logits_NK: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities, without overflow for large logits."""
    return torch.from_numpy(logits_NK).sigmoid().numpy()


def sliced(rows_N: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """``rows_N`` in pieces of at most ``batch_size``."""
    for start in range(0, len(rows_N), batch_size):
        yield rows_N[start : start + batch_size]
