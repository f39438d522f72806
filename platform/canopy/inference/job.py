"""The command ``predict``: checks what it is given, then runs the pipeline and completes its output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from canopy.bands import BandLayout
from canopy.config import Experiment, derive
from canopy.ensemble.model import Ensemble, to_json
from canopy.errors import ConfigError, refuse_credentials
from canopy.inference.chips import ChipDecoder
from canopy.inference.images import ImageList, list_images, require_images
from canopy.inference.load import open_run
from canopy.inference.networks import Precision
from canopy.inference.predictions_table import SUFFIXES, check_output, write_predictions
from canopy.inference.shards import BatchJob, ShardDirectory, rows_per_shard
from canopy.runtime.cluster import connect, require_shared_path
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.storage.checksum import checksum
from canopy.storage.run_dir import RunDir
from canopy.storage.shared import Place, SharedStorage
from canopy.train.trained_model import weights_path

NAME = "predict"
"""Name of the command on the console."""
PARTS = ".parts"
"""Added to the name of an output file: the directory of its shards until it is complete."""
NAMED_BAD = 20
"""Unreadable images that are named on the console."""


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """How the model of a request is used.

    Args:
        members: variants to use; empty: those of the run's ensemble.
        max_members: largest number of members; None: no limit.
        precision: of the networks; None: each as it was trained.
        gpus_per_actor: GPUs of each process that holds the networks; None: 1 where the cluster has GPUs.
        cpus_per_actor: threads of each such process on CPUs, 1 or more.
    """

    members: Sequence[str] = ()
    max_members: int | None = None
    precision: Precision | None = None
    gpus_per_actor: float | None = None
    cpus_per_actor: int = 1


@dataclass(frozen=True)
class PredictRequest(ModelChoice):
    """What to predict.

    Args:
        model: directory or URI of a finished run.
        images: directory or URI of images, or a Parquet table of them (:mod:`canopy.inference.images`).
        out: a file, ``.parquet`` or ``.csv``, or a directory for shards (:mod:`canopy.inference.shards`).
        max_bad_fraction: share of unreadable images that are named and left out, 0 to 1.
        max_image_mb: memory that decoding one image may take, in MB; None: as in the run's config.
        member_probabilities: whether to write each member's probabilities too.
        embeddings: whether to write each member's features.
        autotune: whether timed steps choose the settings of the networks in a large job.
        tune_precision: whether they may choose bfloat16.
    """

    model: str
    images: str
    out: str
    max_bad_fraction: float = 0.0
    max_image_mb: float | None = None
    member_probabilities: bool = False
    embeddings: bool = False
    autotune: bool = True
    tune_precision: bool = False

    @property
    def is_file(self) -> bool:
        """Whether the output is one file."""
        return files.suffix(self.out) in SUFFIXES

    @property
    def shard_root(self) -> str:
        """Directory of the shards."""
        if not self.is_file:
            return files.absolute(self.out)
        directory, name = files.parent(self.out)
        return files.absolute(files.join(directory, name + PARTS) if directory else name + PARTS)


def predict_images(request: PredictRequest, console: Console) -> int:
    """Predict every image and write the output; goes on with what an earlier start left.

    Returns:
        The number of images predicted, those of earlier starts included.

    Raises:
        ConfigError: when an option is wrong, the output cannot be written, or it is of another job.
        DataError: when there are no images, or too many are unreadable.
        RunDirError: when the run is not finished, or damaged.
        StorageError: when a store fails.
        ClusterError: when worker processes keep dying.
    """
    check_request(request)
    require_images(request.images)
    run_dir = RunDir(files.absolute(request.model))
    config, ensemble = open_run(run_dir, request.members or None, request.max_members)
    config = with_limit(config, request.max_image_mb)
    images = list_images(request.images, BandLayout.of(config.data))
    directory = ShardDirectory(request.shard_root, batch_job(request, run_dir, config, ensemble, images))
    directory.open("--out")
    if directory.missing():
        predict_missing(request, run_dir, config, ensemble, images, directory, console)
    elif directory.finished and not request.is_file:
        console.say(NAME, "done already")
    bad = name_bad(directory, console)
    directory.finish(len(images) - bad, bad)
    if request.is_file:
        write_predictions(request.out, directory.gather())
        directory.remove()
    return len(images) - bad


def name_bad(directory: ShardDirectory, console: Console) -> int:
    """Name the first unreadable images on the console; the number of all of them."""
    table = directory.bad()
    for image in table.slice(0, NAMED_BAD).to_pylist():
        console.say(NAME, f"left out {image['id']}: {image['problem']}")
    count = int(table.num_rows)
    if count > NAMED_BAD:
        console.say(NAME, f"left out {count - NAMED_BAD:,} more")
    return count


def predict_missing(
    request: PredictRequest,
    run_dir: RunDir,
    config: Experiment,
    ensemble: Ensemble,
    images: ImageList,
    directory: ShardDirectory,
    console: Console,
) -> None:
    """Start Ray and predict the shards that are missing."""
    from canopy.inference.batch import BatchPipeline, Columns, ModelSource, Workplace
    from canopy.inference.batch_autotune import job_execution
    from canopy.inference.load import assemble
    from canopy.inference.networks import chosen_device
    from canopy.train.fleet.shutdown import end_on_sigterm

    missing = len(directory.missing())
    assemble(run_dir, config, ensemble, chosen_device("cpu"), request.precision)  # every file is checked here
    connect()
    end_on_sigterm()
    places = [Place("--model", run_dir.root, written=False)]
    if files.is_uri(directory.root):  # on local disks this node alone writes
        places.append(Place("--out", directory.root, written=True))
    SharedStorage(places).check()
    workplace = Workplace.of_cluster(missing, request.gpus_per_actor, request.cpus_per_actor)
    members = ", ".join(ensemble.members)
    console.say(NAME, f"{len(images):,} images, members {members}; {workplace}")
    source = ModelSource(run_dir.root, config, ensemble, request.precision)
    options = request.autotune, request.tune_precision
    execution = job_execution(source, images, directory, workplace, console, *options)
    source = replace(source, execution=execution)
    pipeline = BatchPipeline(
        source,
        ChipDecoder.of(config.data),
        images,
        directory,
        Columns(request.member_probabilities, request.embeddings),
        workplace,
    )
    pipeline.run(request.max_bad_fraction, console)


def check_request(request: PredictRequest) -> None:
    """Refuse what is wrong in itself, before anything is listed or loaded.

    Raises:
        InputError: when an address holds credentials.
        ConfigError: when a number is out of range, or the output cannot be written.
    """
    for option in ("model", "images", "out"):
        refuse_credentials(f"--{option}", getattr(request, option))
        require_shared_path(f"--{option}", getattr(request, option))
    if not 0 <= request.max_bad_fraction <= 1:  # NaN fails too
        need, remedy = "must be a share between 0 and 1", "Give 0.01 to leave out up to 1%."
        raise ConfigError("--max-bad-fraction", need, request.max_bad_fraction, remedy)
    if request.max_image_mb is not None and not 1 <= request.max_image_mb < float("inf"):
        raise ConfigError("--max-image-mb", "must be 1 or more", request.max_image_mb, "Give 400.")
    if request.gpus_per_actor is not None and not 0 <= request.gpus_per_actor <= 64:
        raise ConfigError("--gpus-per-actor", "must be 0 to 64", request.gpus_per_actor, "Give 1, 0.5 or 0.")
    if not 1 <= request.cpus_per_actor <= 1024:
        raise ConfigError("--cpus-per-actor", "must be 1 to 1024", request.cpus_per_actor, "Give 1.")
    if request.tune_precision and (request.precision is not None or not request.autotune):
        got = f"--precision {request.precision}" if request.precision is not None else "--autotune False"
        remedy = "Leave one of them out."
        raise ConfigError("--tune-precision", "needs autotune, and no stated precision", got, remedy)
    if request.embeddings and files.suffix(request.out) == ".csv":
        need, remedy = "must be Parquet with --embeddings", "Give --out FILE.parquet or a directory."
        raise ConfigError("--out", need, files.shown(request.out), remedy)
    check_output(request.out)


def with_limit(config: Experiment, max_image_mb: float | None) -> Experiment:
    """``config`` with another ``data.max_image_mb``; None changes nothing."""
    if max_image_mb is None:
        return config
    return derive(config, data=derive(config.data, max_image_mb=max_image_mb))


def batch_job(
    request: PredictRequest, run_dir: RunDir, config: Experiment, ensemble: Ensemble, images: ImageList
) -> BatchJob:
    """Everything that the content of the output depends on.

    Raises:
        RunDirError: when weights are missing.
    """
    options = {
        "precision": request.precision,
        "member_probabilities": request.member_probabilities,
        "embeddings": request.embeddings,
        "tune_precision": request.tune_precision,
        "max_image_mb": config.data.max_image_mb,
    }
    return BatchJob(
        model=model_digest(run_dir, config, ensemble),
        images=len(images),
        images_digest=images.digest,
        rows_per_shard=rows_per_shard(config.data.image_size),
        options=tuple(f"{name} {value}" for name, value in options.items() if value),
    )


def model_digest(run_dir: RunDir, config: Experiment, ensemble: Ensemble) -> str:
    """64 hex digits over the ensemble, the weights of its members and the preprocessing."""
    found: list[Any] = [to_json(ensemble), config.data.image_size, config.data.sensor.model_dump(mode="json")]
    layout = BandLayout.of(config.data)
    found += [] if layout is None else [layout.to_json()]
    for name in ensemble.members:
        for fold in range(config.folds):
            path = weights_path(run_dir, name, fold)
            found.append(checksum(path).to_json() if files.exists(path) else None)  # loading names it
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
