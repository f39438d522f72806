"""Logits of every row exactly once, over any number of ranks; the scores that select an epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve
from torch import Tensor, nn

from canopy import metrics
from canopy.config import OptimConfig
from canopy.errors import DataError
from canopy.runtime.collectives import gather_objects
from canopy.train.training_records import ValidationScores

Symmetries = Literal["none", "flips", "d4"]
"""Symmetries of a chip for test-time augmentation: itself only, its 4 flips, or its 8 symmetries."""


class RowLogits(NamedTuple):
    """Logits with the catalogue rows that they belong to."""

    rows_n: NDArray[np.int64]
    logits_nK: NDArray[np.float32]


@torch.inference_mode()
def predict_logits(
    network: nn.Module,
    batches: Iterable[tuple[NDArray[np.int64], Tensor]],
    labels: int,
    config: OptimConfig,
    tta: Symmetries = "none",
) -> RowLogits:
    """Logits of this rank's batches.

    With ``tta`` they are the mean *logits* over the symmetries of each chip, which are the logits of the
    geometric mean of the odds. Calibration expects logits, and a mean of probabilities would draw confident
    answers towards 0.5, where they look like uncertain ones.

    Args:
        network: switched to evaluation mode here and left so.
        batches: pairs of row numbers (n,) and normalized images (n, C, H, W) on the device.
        labels: number of labels K.
        config: its precision is used.
        tta: symmetries to average over.
    """
    network.eval()
    rows, logits = [np.empty(0, np.int64)], [np.empty((0, labels), np.float32)]
    for rows_n, images_NCHW in batches:
        with torch.autocast(images_NCHW.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            views = [network(view).float() for view in symmetries(images_NCHW, tta)]
        rows.append(rows_n)
        logits.append((sum(views) / len(views)).cpu().numpy())
    return RowLogits(np.concatenate(rows), np.concatenate(logits))


def symmetries(images_NCHW: Tensor, tta: Symmetries) -> Iterator[Tensor]:
    """The images, their four flips, or their eight symmetries (square images only); (N, C, H, W) each."""
    turns = (0, 1) if tta == "d4" else (0,)
    flips: tuple[tuple[int, ...], ...] = ((),) if tta == "none" else ((), (2,), (3,), (2, 3))
    for turn in turns:
        turned_NCHW = torch.rot90(images_NCHW, turn, (2, 3)) if turn else images_NCHW
        yield from (torch.flip(turned_NCHW, flip) if flip else turned_NCHW for flip in flips)


def gather_logits(part: RowLogits, expected_rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits (N, K) of all ranks in the order of ``expected_rows`` (N,), on every rank.

    Args:
        part: logits of this rank.
        expected_rows: rows that all ranks together must have predicted, each exactly once. An assertion
            checks it: a stream that drops or repeats rows is a bug, and an average over the wrong rows would
            hide it.
    """
    parts: list[RowLogits] = gather_objects(part)
    rows = np.concatenate([part.rows_n for part in parts])
    logits = np.concatenate([part.logits_nK for part in parts])
    order = np.argsort(rows, kind="stable")
    wanted = np.argsort(expected_rows, kind="stable")
    assert np.array_equal(rows[order], expected_rows[wanted]), "evaluation lost or repeated rows"
    out = np.empty_like(logits)
    out[wanted] = logits[order]
    return out


def best_f1(targets_NK: NDArray[np.uint8], probs_NK: NDArray[np.float32]) -> NDArray[np.float64]:
    """Highest F1 of each class over all thresholds, shape (K,), NaN for a class without positives.

    The figure is optimistic, because the threshold is chosen on the rows that it is scored on. It compares
    epochs of one network and is never reported.
    """
    best_K = np.full(targets_NK.shape[1], np.nan)
    for k in np.flatnonzero(targets_NK.any(0)):
        precision, recall, _ = precision_recall_curve(targets_NK[:, k], probs_NK[:, k])
        best_K[k] = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    return best_K


def selection_scores(
    targets_NK: NDArray[np.uint8], logits_NK: NDArray[np.float32], select_by: str
) -> ValidationScores:
    """Validation scores of an epoch. Classes without positives are left out of both means.

    Args:
        targets_NK: labels of the selection rows, 0 or 1, shape (N, K).
        logits_NK: logits of the same rows, shape (N, K).
        select_by: ``map`` or ``macro_f1``: which of the two is ``score``.

    Raises:
        DataError: when no class has positives.
    """
    if not targets_NK.any():
        raise DataError(
            "The validation rows that select an epoch",
            "must hold at least one positive label",
            f"none in {len(targets_NK)} rows",
            "Raise data.val_fraction, or check the label table.",
        )
    probs_NK = logits_to_probs(logits_NK)
    scores = {
        "val_map": metrics.mean_average_precision(targets_NK, probs_NK),
        "val_macro_f1": float(np.nanmean(best_f1(targets_NK, probs_NK))),
    }
    return ValidationScores(scores[f"val_{select_by}"], **scores)


def logits_to_probs(logits_NK: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of logits, shape (N, K), without overflow for large logits."""
    return torch.from_numpy(logits_NK).sigmoid().numpy()


def split_rows(rows_N: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """``rows_N`` in consecutive parts of shape (n,), at most ``batch_size`` rows each."""
    for start in range(0, len(rows_N), batch_size):
        yield rows_N[start : start + batch_size]
