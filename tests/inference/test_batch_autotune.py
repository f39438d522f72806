"""A job's settings on a real Ray: chosen once, kept for later starts, left out in small jobs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from canopy.errors import ConfigError
from canopy.inference import batch_autotune, job
from canopy.inference.job import PredictRequest, check_request, predict_images
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

    (out / "_autotune.json").unlink()  # as by a version before it: goes on with the defaults
    (out / "part-000001.parquet").unlink()
    assert predict_images(request, Console()) == len(images_NHWC)
    assert not (out / "_autotune.json").exists()


def test_a_stated_precision_is_not_chosen() -> None:
    for fields in ({"precision": "float32"}, {"autotune": False}):
        with pytest.raises(ConfigError, match="--tune-precision needs autotune, and no stated precision"):
            check_request(PredictRequest("m", "i", "o", tune_precision=True, **fields))  # type: ignore[arg-type]
