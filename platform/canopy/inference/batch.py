"""Batch inference: the finished ensemble of a run, applied to a folder of images it has never seen."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from canopy.config import SensorConfig, allowed_count
from canopy.data.loading.chip_cache import decode_all
from canopy.data.sources import EXTENSIONS, is_hidden
from canopy.data.transforms.augment import normalize
from canopy.data.transforms.crop import center_crop
from canopy.ensemble.model import Ensemble
from canopy.errors import DataError, RunDirError
from canopy.runtime.cluster import connect
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.evaluate import predict_logits, sigmoid, split_rows
from canopy.train.trained_model import TrainedModel, load_trained_model

SCORE_BATCH = 256
UNIT = "predict"


@dataclass(frozen=True)
class Model:
    """A run's ensemble with the networks behind its members.

    Args:
        ensemble: weights, calibration, thresholds.
        networks: by member, one per fold.
        image_size: to which images are decoded.
        sensor: how files of many bands or 16 bits are shown; as in training.
    """

    ensemble: Ensemble
    networks: dict[str, list[TrainedModel]]
    image_size: int
    device: torch.device
    sensor: SensorConfig

    @classmethod
    def load(cls, run: RunDir) -> Model:
        """Read a finished run.

        Raises:
            RunDirError: when the run has no ensemble yet, or weights are missing.
        """
        config = run.load_config()
        path = run.path("ensemble", "ensemble.json")
        if not files.exists(path):
            problem = "must hold a finished ensemble"
            raise RunDirError(
                f"Run directory {run.root}", problem, "none", "Run jobs/pipeline.py with it first."
            )
        ensemble = Ensemble.load(path)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        labels, folds = len(ensemble.labels), range(config.folds)
        networks = {
            name: [load_trained_model(run, name, fold, labels, device) for fold in folds]
            for name in ensemble.members
        }
        return cls(ensemble, networks, config.data.image_size, device, config.data.sensor)

    def predict(self, images_NHWC: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Probabilities and decisions, each (N, K), of decoded images (N, size, size, 3)."""
        return self.ensemble.predict(
            {name: [self._probs(net, images_NHWC) for net in nets] for name, nets in self.networks.items()}
        )

    def _probs(self, net: TrainedModel, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        variant = net.variant
        chips_NHWC = center_crop(torch.from_numpy(images_NHWC), variant.augment.crop)
        batches = (
            (rows, normalize(chips_NHWC[rows].to(self.device)))
            for rows in split_rows(np.arange(len(images_NHWC)), SCORE_BATCH)
        )
        labels = len(self.ensemble.labels)
        _, logits_NK = predict_logits(net.network, batches, labels, variant.optim, variant.tta)
        return sigmoid(logits_NK)


def predict_folder(model: str, images: str, out: str, max_bad_fraction: float, console: Console) -> int:
    """Score every image under ``images`` and write Parquet: ``id``, ``probs``, ``decisions`` per label.

    Args:
        model: a finished run's directory.
        images: folder or URI, searched with all folders below it; an id is the path in it.
        out: the Parquet file to write: ``id``, then ``prob:LABEL`` (float32) and ``LABEL`` (bool) columns.
        max_bad_fraction: unreadable images up to this share are named and left out.
        console: where progress goes.

    Returns:
        The number of images scored.

    Raises:
        DataError: when there are no images, or too many cannot be read.
        RunDirError: when the run is not finished.
    """
    ids = image_files(images)
    connect()
    loaded = Model.load(RunDir(files.absolute(model)))
    uris = tuple(files.absolute(files.join(images, name)) for name in ids)
    console.say(UNIT, f"{len(ids):,} images, members {', '.join(loaded.ensemble.members)}")
    names, probs, decisions, bad = [], [], [], []
    since = time.monotonic()
    for batch, found in decode_all(uris, loaded.image_size, loaded.sensor):
        good = np.array([not inspection.problem for inspection in found])
        bad += [(ids[row], i.problem) for row, i in zip(batch["row"], found, strict=True) if i.problem]
        refuse_bad(bad, len(ids), max_bad_fraction)
        probs_nK, decisions_nK = loaded.predict(batch["image"][good])
        names += [ids[row] for row in batch["row"][good]]
        probs.append(probs_nK)
        decisions.append(decisions_nK)
        console.count(UNIT, "images", len(names) + len(bad), len(ids), since)
    for name, why in bad:
        console.say(UNIT, f"left out {name}: {why}")
    labels = loaded.ensemble.labels.names
    files.write_table(out, table_of(names, np.concatenate(probs), np.concatenate(decisions), labels))
    return len(names)


def image_files(directory: str) -> list[str]:
    """Paths, relative to ``directory``, of the images under it.

    Raises:
        DataError: when it is missing or has none.
    """
    remedy = f"Give --images DIR with {', '.join(EXTENSIONS)} files."
    if not files.is_dir(directory):
        raise DataError("--images", "must be a directory", directory, remedy)
    found = [
        name
        for name in files.list_files(directory, recursive=True)
        if name.lower().endswith(EXTENSIONS) and not is_hidden(name)
    ]
    if not found:
        raise DataError("--images", "must hold at least one image", directory, remedy)
    return found


def refuse_bad(bad: Sequence[tuple[str, str]], total: int, max_bad_fraction: float) -> None:
    """Raise ``DataError``, naming the first unreadable image, when there are more than allowed."""
    if len(bad) > allowed_count(max_bad_fraction, total):
        name, why = bad[0]
        need = f"must be readable (at most {max_bad_fraction:.1%} of {total:,} may not be)"
        raise DataError(f"Image {name}", need, why, "Repair or remove it, or raise --max-bad-fraction.")


def table_of(
    ids: Sequence[str],
    probs_NK: NDArray[np.float32],
    decisions_NK: NDArray[np.uint8],
    labels: Sequence[str],
) -> pa.Table:
    """One row per image; the ordered label names are in the schema's metadata."""

    def columns() -> Iterator[tuple[str, pa.Array]]:
        yield "id", pa.array(list(ids), pa.string())
        for k, label in enumerate(labels):
            yield f"prob:{label}", pa.array(probs_NK[:, k], pa.float32())
        for k, label in enumerate(labels):
            yield label, pa.array(decisions_NK[:, k].astype(bool))

    return pa.table(dict(columns())).replace_schema_metadata({"labels": json.dumps(list(labels))})
