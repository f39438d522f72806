"""A job's settings on a real Ray: chosen once, kept for later starts, left out in small jobs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from canopy.data.loading.uri_list import UriList
from canopy.errors import ConfigError
from canopy.inference import batch_autotune, job
from canopy.inference.autotune import keep_execution
from canopy.inference.batch import ModelSource, Workplace
from canopy.inference.batch_autotune import job_execution
from canopy.inference.images import ImageList
from canopy.inference.job import PredictRequest, check_request, predict_images
from canopy.inference.load import open_run
from canopy.inference.shards import BatchJob, ShardDirectory
from canopy.models.execution import Execution
from canopy.runtime.console import Console
from canopy.storage.run_dir import RunDir


@pytest.mark.usefixtures("ray_here")
def test_a_large_job_is_tuned_once_and_resumes_with_the_same_settings(
    finished: RunDir,
    images_NHWC: NDArray[np.uint8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for n, pixels in enumerate(images_NHWC):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{n}.png")
    monkeypatch.setenv("CANOPY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(job, "rows_per_shard", lambda _: 4)
    monkeypatch.setattr(batch_autotune, "LEAST_IMAGES", 5)
    out = tmp_path / "out"
    images = str(tmp_path / "images")
    request = PredictRequest(
        finished.root, images, str(out), cpus_per_actor=2, members=("resnet",), tune_precision=True
    )
    assert predict_images(request, Console()) == len(images_NHWC)
    said = capsys.readouterr().out
    assert "autotune: networks run with" in said
    kept = Execution.from_json(json.loads((out / "_autotune.json").read_text()), "x")
    assert kept.threads <= 2
    assert kept.precision is None, "seven images prove nothing about bfloat16"
    first = (out / "part-000001.parquet").read_bytes()

    (out / "part-000001.parquet").unlink()
    assert predict_images(request, Console()) == len(images_NHWC)
    assert "as in the earlier start" in capsys.readouterr().out
    assert (out / "part-000001.parquet").read_bytes() == first


def test_a_small_job_or_one_begun_without_a_choice_runs_with_the_defaults(
    finished: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = ImageList(UriList([f"{n}.png" for n in range(10)]), "d", str(tmp_path))
    directory = ShardDirectory(str(tmp_path / "out"), BatchJob("m", 10, "d", 4))
    directory.open("--out")
    config, ensemble = open_run(finished)
    source = ModelSource(finished.root, config, ensemble)

    def execution(tune: bool = True) -> Execution | None:
        return job_execution(source, images, directory, Workplace(1, 0, 1), Console(), tune)

    assert execution() is None, "ten images"
    monkeypatch.setattr(batch_autotune, "LEAST_IMAGES", 5)
    assert execution(tune=False) is None
    directory.write(1, b"predictions of an earlier version", b"")
    assert execution() is None, "the first shards were written with the defaults"
    kept = Execution(1, 8, "contiguous")
    keep_execution(directory, kept)
    assert execution(tune=False) == kept, "values of one job come from one setting"


def test_a_stated_precision_is_not_chosen() -> None:
    for fields in ({"precision": "float32"}, {"autotune": False}):
        with pytest.raises(ConfigError, match="--tune-precision needs autotune, and no stated precision"):
            check_request(PredictRequest("m", "i", "o", tune_precision=True, **fields))
