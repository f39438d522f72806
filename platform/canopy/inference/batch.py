"""Batch inference: the ensemble of a finished run, applied to many images by a pipeline of Ray Data.

Tasks read and decode the images of a shard, actors hold the networks and predict it, tasks write it. The
driver sees three numbers of each shard, so that its memory does not depend on the number of images, but for
their names.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import ray
import torch
from ray.exceptions import RayActorError

from canopy.config import Experiment
from canopy.data.loading.chip_source import NEEDS_MEMORY
from canopy.data.loading.decode_blocks import CRASHES_DECODER, decode_blocks
from canopy.data.loading.ray_stream import Batch
from canopy.ensemble.model import Ensemble
from canopy.errors import ClusterError
from canopy.inference.chips import ChipDecoder
from canopy.inference.images import ImageList
from canopy.inference.load import assemble
from canopy.inference.model import Model
from canopy.inference.networks import Precision, chosen_device
from canopy.inference.shard_stream import CRASH_RETRIES, shard_stream
from canopy.inference.shards import ShardDirectory, bad_table, parquet_bytes
from canopy.inference.tally import Tally, refuse_bad
from canopy.models.execution import Execution
from canopy.runtime.console import Console
from canopy.runtime.logging import configure_logging
from canopy.runtime.malloc import keep_freed_memory
from canopy.runtime.ray_tasks import CRASHES, cluster_cpus
from canopy.storage import files
from canopy.storage.run_dir import RunDir

NAME = "predict"
"""Name of the command on the console."""
SUSPECTS = 64
"""Shards that are searched for images that end their process; no more are in the pipeline at a time."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workplace:
    """Where the networks run.

    Args:
        actors: largest number of actors.
        gpus: GPUs of an actor, such as 0.5; 0 for the CPU.
        threads: threads of an actor's networks on the CPU.
    """

    actors: int
    gpus: float
    threads: int

    @classmethod
    def of_cluster(cls, shards: int, gpus_per_actor: float | None, cpus_per_actor: int) -> Workplace:
        """One actor per GPU where the cluster has GPUs, else one per ``cpus_per_actor`` CPUs.

        Args:
            shards: number of shards; there are no more actors than that.
            gpus_per_actor: GPUs of an actor; None: 1 where the cluster has any, else 0. With a number, an
                autoscaling cluster brings nodes with GPUs.
            cpus_per_actor: threads of an actor on CPUs.
        """
        there = float(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
        gpus = (1.0 if there else 0.0) if gpus_per_actor is None else gpus_per_actor
        room = there / gpus if gpus else cluster_cpus() / cpus_per_actor
        return cls(min(shards, max(1, int(room))), gpus, cpus_per_actor)

    def __str__(self) -> str:
        where = f"{self.gpus:g} GPU each" if self.gpus else f"{self.threads} CPU thread(s) each"
        return f"up to {self.actors} actor(s), {where}"


@dataclass(frozen=True)
class ModelSource:
    """What an actor needs to make the model.

    Args:
        run: path or URI of the run directory.
        config: its config.
        ensemble: the ensemble, refitted where a choice of members asks for it.
        precision: of the networks; None: as trained.
        execution: how the networks are executed; None: the defaults of the device.
    """

    run: str
    config: Experiment
    ensemble: Ensemble
    precision: Precision | None = None
    execution: Execution | None = None

    def model(self, workplace: Workplace) -> Model:
        """The model, in a process of an actor that is set up for it."""
        configure_logging("worker")
        device = chosen_device("cuda" if workplace.gpus else "cpu")
        if device.type == "cpu":
            threads = workplace.threads if self.execution is None else self.execution.threads
            torch.set_num_threads(min(threads, len(os.sched_getaffinity(0))))
        return assemble(
            RunDir(self.run), self.config, self.ensemble, device, self.precision, execution=self.execution
        )


@dataclass(frozen=True)
class Columns:
    """Columns of the output beyond the ensemble's."""

    member_probabilities: bool = False
    embeddings: bool = False


@dataclass(frozen=True)
class _ReadShard:
    """Task: the chips of a shard, uint8, black where unreadable, and the problem of each."""

    shared_images: ray.ObjectRef[ImageList]  # in the object store: a task's own arguments must stay small
    directory: ShardDirectory
    decoder: ChipDecoder
    known_problems: dict[int, str]  # by image, of those that end their process

    def __call__(self, block: Batch) -> Batch:
        keep_freed_memory()
        images = ray.get(self.shared_images)
        (shard,) = block["shard"].tolist()
        rows_n = np.asarray(self.directory.job.rows(shard))
        ids, uris = images.at(rows_n)
        chips_nHWC = np.empty((len(rows_n), *self.decoder.shape), self.decoder.dtype)
        problems = []
        for row, uri, chip in zip(rows_n.tolist(), uris, chips_nHWC, strict=True):
            problem = self.known_problems.get(row)
            if problem is None:
                problem = self.decoder.read_into(chip, uri)
            problems.append(problem)
        return {
            "shard": np.full(len(rows_n), shard),
            "id": np.array(ids, object),
            "problem": np.array(problems, object),
            "image": chips_nHWC,
        }


class _Predictor:
    """Actor: the networks; turns a block of chips into the two files of its shard."""

    def __init__(self, source: ModelSource, columns: Columns, workplace: Workplace) -> None:
        self._columns = columns
        self._model = source.model(workplace)

    def __call__(self, block: Batch) -> Batch:
        good = block["problem"] == ""
        ids = block["id"].tolist()
        found = self._model.predict_decoded(
            block["image"][good],
            [name for name, readable in zip(ids, good, strict=True) if readable],
            member_probabilities=self._columns.member_probabilities,
            embeddings=self._columns.embeddings,
        )
        bad_ids = [name for name, readable in zip(ids, good, strict=True) if not readable]
        bad = bad_table(bad_ids, block["problem"][~good].tolist())
        return {
            "shard": block["shard"][:1],
            "images": np.array([len(ids)]),
            "bad": np.array([len(bad_ids)]),
            "first_bad": np.array([Tally.of_table(0, bad).first_bad], object),
            "predictions": np.array([parquet_bytes(found.to_arrow())], object),
            "bad_file": np.array([parquet_bytes(bad) if bad_ids else b""], object),
        }


@dataclass(frozen=True)
class _WriteShard:
    """Task: writes the files of a shard; what remains is its count."""

    directory: ShardDirectory

    def __call__(self, block: Batch) -> Batch:
        (shard,), (predictions,), (bad,) = (
            block[name].tolist() for name in ("shard", "predictions", "bad_file")
        )
        self.directory.write(shard, predictions, bad)
        return {name: block[name] for name in ("shard", "images", "bad", "first_bad")}


@dataclass(frozen=True)
class BatchPipeline:
    """Predicts the missing shards of a job.

    Args:
        source: the model.
        decoder: its decoder.
        images: the images, sorted by id.
        directory: where the shards go.
        columns: further columns.
        workplace: where the networks run.
    """

    source: ModelSource
    decoder: ChipDecoder
    images: ImageList
    directory: ShardDirectory
    columns: Columns
    workplace: Workplace

    def run(self, max_bad_fraction: float, console: Console) -> None:
        """Predict all missing shards, with lines of progress.

        Raises:
            DataError: when more images are unreadable than allowed.
            ClusterError: when worker processes keep dying.
            StorageError: when the store of the images or of the output fails.
        """
        missing, known_problems, losses = self.directory.missing(), dict[int, str](), 0
        total = len(self.images)
        to_do = self._images_of(missing)
        if to_do < total:
            console.say(NAME, f"{total - to_do:,} of {total:,} images are done already")
        refuse_bad(self._tally(0), total, max_bad_fraction)
        since = time.monotonic()
        while missing:
            tally = self._tally(to_do - self._images_of(missing))
            try:
                for found in self.results(missing, known_problems):
                    tally = tally.plus(found)
                    refuse_bad(tally, total, max_bad_fraction)
                    console.count(NAME, "images", tally.images, to_do, since)
                return
            except (*CRASHES, RayActorError) as error:
                logger.warning("a worker process was lost: %s", error)
                before, missing = missing, self.directory.missing()
                losses = 1 if len(missing) < len(before) else losses + 1
                if isinstance(error, CRASHES):
                    found_now = self._crashing(missing[:SUSPECTS], known_problems)
                    known_problems |= found_now
                    losses = 0 if found_now else losses
                if losses > CRASH_RETRIES:
                    raise _lost(losses) from error
                console.say(NAME, "a worker process was lost; going on with the shards that are missing")

    def _images_of(self, shards: Sequence[int]) -> int:
        return sum(len(self.directory.job.rows(shard)) for shard in shards)

    def _tally(self, images: int) -> Tally:
        """The tally of ``images`` images, with all unreadable ones of the shards that are written."""
        return Tally.of_table(images, self.directory.bad())

    def results(self, shards: list[int], known_problems: dict[int, str]) -> Iterator[Tally]:
        """Predict ``shards``; one tally per shard, as they are written.

        Args:
            shards: numbers of the shards, at least one.
            known_problems: problem by image of those that end their process.
        """
        dataset = shard_stream(
            shards,
            _ReadShard(ray.put(self.images), self.directory, self.decoder, known_problems),
            _Predictor,
            (self.source, self.columns, self.workplace),
            _WriteShard(self.directory),
            self.workplace,
            on_this_node=not files.is_uri(self.directory.root),
        )
        for block in dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1):
            for images, bad, first in zip(block["images"], block["bad"], block["first_bad"], strict=True):
                yield Tally(int(images), int(bad), str(first))

    def _crashing(self, shards: list[int], known: dict[int, str]) -> dict[int, str]:
        """Problem by number of the images of ``shards`` that end the process which decodes them."""
        rows_n = [row for shard in shards for row in self.directory.job.rows(shard) if row not in known]
        _, uris = self.images.at(np.array(rows_n, np.int64))
        decoder, found = self.decoder, dict[int, str]()
        blocks = decode_blocks(
            [decoder.addresses(uri) for uri in uris],
            decoder.size,
            decoder.sensor,
            max_bytes=decoder.max_bytes,
            with_images=False,
            layout=decoder.layout,
        )
        for batch, inspections in blocks:
            for position, inspection in zip(batch["row"].tolist(), inspections, strict=True):
                if inspection.problem in (CRASHES_DECODER, NEEDS_MEMORY):
                    found[rows_n[position]] = inspection.problem
        return found


def _lost(times: int) -> ClusterError:
    return ClusterError(
        "The worker processes",
        "must survive the prediction of a shard",
        f"they were lost {times} times in a row, but every image can be read",
        "Look at the memory of the machines and at the log files of Ray's session, then start again.",
    )
