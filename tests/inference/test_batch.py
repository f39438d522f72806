"""The pipeline of batch inference: its workplace, its limits, images that end their process."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import ray
from numpy.typing import NDArray
from PIL import Image

from canopy.errors import ClusterError
from canopy.inference import batch
from canopy.inference.batch import BatchPipeline, Columns, ModelSource, Workplace
from canopy.inference.chips import ChipDecoder
from canopy.inference.images import list_images
from canopy.inference.load import open_run
from canopy.inference.shards import BatchJob, ShardDirectory
from canopy.runtime.console import Console
from canopy.storage.run_dir import RunDir


@pytest.mark.parametrize(
    ("resources", "shards", "gpus", "cpus", "expected"),
    [
        ({"CPU": 8.0}, 100, None, 1, Workplace(8, 0.0, 1)),
        ({"CPU": 8.0}, 100, None, 3, Workplace(2, 0.0, 3)),
        ({"CPU": 8.0}, 3, None, 1, Workplace(3, 0.0, 1)),
        ({"CPU": 2.0}, 100, None, 4, Workplace(1, 0.0, 4)),
        ({"CPU": 8.0, "GPU": 2.0}, 100, None, 1, Workplace(2, 1.0, 1)),
        ({"CPU": 8.0, "GPU": 2.0}, 100, 0.5, 1, Workplace(4, 0.5, 1)),
        ({"CPU": 8.0, "GPU": 2.0}, 100, 0.0, 1, Workplace(8, 0.0, 1)),
        ({"CPU": 8.0}, 100, 1.0, 1, Workplace(1, 1.0, 1)),  # an autoscaler may bring a GPU
    ],
)
def test_networks_run_on_gpus_where_there_are_any(
    resources: dict[str, float],
    shards: int,
    gpus: float | None,
    cpus: int,
    expected: Workplace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
    monkeypatch.setattr(batch, "cluster_cpus", lambda: resources["CPU"])
    assert Workplace.of_cluster(shards, gpus, cpus) == expected


@dataclass(frozen=True)
class Deadly(ChipDecoder):
    """Ends its process at the image 3.png, as a fault in native code does."""

    def read_into(self, chip: NDArray[np.uint8], uri: str) -> str:
        if uri.endswith("/3.png"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read_into(chip, uri)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_processes_that_keep_dying_end_the_job_after_the_finished_shards(
    finished: RunDir, images_NHWC: NDArray[np.uint8], tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for n, image_HWC in enumerate(images_NHWC):
        Image.fromarray(image_HWC).save(tmp_path / "images" / f"{n}.png")
    images = list_images(str(tmp_path / "images"))
    config, ensemble = open_run(finished)
    job = BatchJob("model", len(images), images.digest, rows_per_shard=2)
    directory = ShardDirectory(str(tmp_path / "out"), job)
    directory.open("--out")
    pipeline = BatchPipeline(
        ModelSource(finished.root, config, ensemble),
        Deadly(config.data.image_size),
        images,
        directory,
        Columns(),
        Workplace(1, 0.0, 2),
    )
    with pytest.raises(ClusterError, match="must survive the prediction of a shard"):
        pipeline.run(0.0, Console())
    assert 1 in directory.missing()
    replace(pipeline, decoder=ChipDecoder(config.data.image_size)).run(0.0, Console())
    assert directory.gather()["id"].to_pylist() == [f"{n}.png" for n in range(7)]
