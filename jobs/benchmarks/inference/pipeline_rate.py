"""Batch inference as the command runs it, with the time of each shard."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from canopy.inference.batch import BatchPipeline, Columns, ModelSource, Workplace
from canopy.inference.chips import ChipDecoder
from canopy.inference.images import list_images
from canopy.inference.load import open_run
from canopy.inference.networks import Precision
from canopy.inference.shards import BatchJob, ShardDirectory
from canopy.storage import files
from canopy.storage.run_dir import RunDir


@dataclass(frozen=True)
class PipelineReading:
    """One run of the pipeline on a running Ray.

    Args:
        images: number of images.
        whole_s: seconds from the start of the pipeline to its end, start of the actors included.
        steady_rate: images per second after every actor has finished its first shard.
        total: sum of all probabilities.
    """

    images: int
    whole_s: float
    steady_rate: float
    total: float


def pipeline_reading(
    run: str, paths: tuple[str, ...], shard_rows: int, precision: Precision, members: tuple[str, ...] = ()
) -> PipelineReading:
    """Predict ``paths`` in shards of ``shard_rows`` images; Ray must run."""
    run_dir = RunDir(run)
    config, ensemble = open_run(run_dir, members or None)
    with tempfile.TemporaryDirectory(prefix="canopy-predict") as folder:
        table = str(Path(folder) / "images.parquet")
        ids = [f"{n:08}" for n in range(len(paths))]
        files.write_table(table, pa.table({"id": ids, "uri": list(paths)}))
        images = list_images(table)
        job = BatchJob("model", len(images), images.digest, shard_rows)
        directory = ShardDirectory(str(Path(folder) / "out"), job)
        directory.open("--out")
        workplace = Workplace.of_cluster(job.shards, 0.0, 1)
        source = ModelSource(run, config, ensemble, precision)
        decoder = ChipDecoder.of(config.data)
        pipeline = BatchPipeline(source, decoder, images, directory, Columns(), workplace)
        start = time.perf_counter()
        done = [(time.perf_counter(), found.images) for found in pipeline.results(directory.missing(), {})]
        end = time.perf_counter()
        assert directory.missing() == []
        warm = workplace.actors
        steady_s = done[-1][0] - done[warm - 1][0]
        steady = sum(count for _, count in done[warm:]) / steady_s
        predictions = directory.gather()
        total = sum(
            predictions[name].to_numpy().sum()
            for name in predictions.column_names
            if name.startswith("prob:")
        )
        return PipelineReading(len(images), end - start, steady, float(total))
