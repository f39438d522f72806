"""Batch inference: the ensemble of a finished run, applied to a directory of new images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canopy.config import allowed_count
from canopy.data.listing import is_hidden
from canopy.data.loading.decode_blocks import decode_blocks
from canopy.data.sources import EXTENSIONS
from canopy.errors import ConfigError, DataError
from canopy.inference.model import Model
from canopy.inference.output import check_output, predictions_table, write_predictions
from canopy.runtime.cluster import connect
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.fleet.shutdown import end_on_sigterm

NAME = "predict"
"""Name of the command on the console."""


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be decoded.

    Args:
        name: path of the image in the directory.
        problem: the reason.
    """

    name: str
    problem: str


def predict_folder(model: str, images: str, out: str, max_bad_fraction: float, console: Console) -> int:
    """Score every image under ``images`` and write one row per image (:mod:`canopy.inference.output`).

    Args:
        model: directory or URI of a finished run.
        images: directory or URI, searched recursively; an image's id is its path in this directory.
        out: file to write, ``.parquet`` or ``.csv``.
        max_bad_fraction: share of unreadable images that are named and left out, 0 to 1.
        console: receives progress.

    Returns:
        The number of images scored.

    Raises:
        ConfigError: when ``out`` cannot be written or ``max_bad_fraction`` is not in [0, 1].
        DataError: when there are no images, or too many are unreadable.
        RunDirError: when the run is not finished.
    """
    check_fraction(max_bad_fraction)
    check_output(out)
    ids = image_files(images)
    loaded = Model.load(RunDir(files.absolute(model)))
    connect()
    end_on_sigterm()
    console.say(NAME, f"{len(ids):,} images, members {', '.join(loaded.ensemble.members)}")
    names, probs_NK, decisions_NK = score_images(loaded, images, ids, max_bad_fraction, console)
    table = predictions_table(names, probs_NK, decisions_NK, loaded.ensemble.labels.names)
    write_predictions(out, table)
    return len(names)


def score_images(
    model: Model, directory: str, ids: Sequence[str], max_bad_fraction: float, console: Console
) -> tuple[list[str], NDArray[np.float32], NDArray[np.uint8]]:
    """Ids, probabilities (N, K) and decisions (N, K) of the readable images, in their order.

    Args:
        model: model of the run.
        directory: directory or URI of the images.
        ids: paths of the images in the directory.
        max_bad_fraction: share of unreadable images that are left out.
        console: receives progress and the unreadable images.

    Raises:
        DataError: when too many images are unreadable.
    """
    uris = tuple(files.absolute(files.join(directory, name)) for name in ids)
    labels = len(model.ensemble.labels)
    probs, decisions = [np.zeros((0, labels), np.float32)], [np.zeros((0, labels), np.uint8)]
    names, bad = list[str](), list[SkippedImage]()
    since = time.monotonic()
    for batch, inspections in decode_blocks(uris, model.image_size, model.sensor):
        good = np.array([not inspection.problem for inspection in inspections])
        bad += [
            SkippedImage(ids[row], found.problem)
            for row, found in zip(batch["row"], inspections, strict=True)
            if found.problem
        ]
        refuse_bad(bad, len(ids), max_bad_fraction)
        if good.any():
            probs_nK, decisions_nK = model.predict(batch["image"][good])
            names += [ids[row] for row in batch["row"][good]]
            probs.append(probs_nK)
            decisions.append(decisions_nK)
        console.count(NAME, "images", len(names) + len(bad), len(ids), since)
    for image in bad:
        console.say(NAME, f"left out {image.name}: {image.problem}")
    return names, np.concatenate(probs), np.concatenate(decisions)


def check_fraction(max_bad_fraction: float) -> None:
    """Raise ``ConfigError`` unless ``max_bad_fraction`` is in [0, 1]."""
    if not 0 <= max_bad_fraction <= 1:  # NaN fails too
        need = "must be a share between 0 and 1"
        raise ConfigError("--max-bad-fraction", need, max_bad_fraction, "Give 0.01 to leave out up to 1%.")


def image_files(directory: str) -> list[str]:
    """Paths of the images under ``directory``, relative to it.

    Raises:
        DataError: when the directory is missing or has no image.
    """
    remedy = f"Give --images DIR with {', '.join(EXTENSIONS)} files."
    if not files.is_dir(directory):
        raise DataError("--images", "must be a directory", files.shown(directory), remedy)
    found = [
        name
        for name in files.list_files(directory, recursive=True)
        if name.lower().endswith(EXTENSIONS) and not is_hidden(name)
    ]
    if not found:
        raise DataError("--images", "must hold at least one image", files.shown(directory), remedy)
    return found


def refuse_bad(bad: Sequence[SkippedImage], total: int, max_bad_fraction: float) -> None:
    """Raise ``DataError``, naming the first unreadable image, when there are more than allowed."""
    if len(bad) > allowed_count(max_bad_fraction, total):
        first = bad[0]
        need = f"must be readable (at most {max_bad_fraction:.1%} of {total:,} may not be)"
        remedy = "Repair or remove it, or raise --max-bad-fraction."
        raise DataError(f"Image {first.name}", need, first.problem, remedy)
