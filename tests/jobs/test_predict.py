"""``jobs/predict.py``: options are checked first, signals end it cleanly."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image
from tests.support import end_job, start_job, tiny_experiment, wait_until, write_config

from jobs import pipeline, predict


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A directory with one image."""
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (32, 32)).save(folder / "a.png")
    return folder


@pytest.mark.parametrize("fraction", ["nan", "-1", "1.01", "inf"])
def test_a_share_that_is_none_is_refused_before_anything_is_read(
    fraction: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", "none", "--images", str(images), "--out", str(tmp_path / "o.parquet")]
    assert predict.main([*arguments, f"--max-bad-fraction={fraction}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --max-bad-fraction must be a share between 0 and 1. Got: ")


@pytest.mark.parametrize("out", ["images", "o.json", "o", "images/a.png/o.csv"])
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_read(
    out: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", "none", "--images", str(images), "--out", str(tmp_path / out)]
    assert predict.main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: --out must ")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Path:
    """A finished run of one variant."""
    folder = tmp_path_factory.mktemp("model")
    file = write_config(tiny_experiment(variants=1, trials=0, epochs=1), folder / "c.yaml")
    assert pipeline.main(["--config", str(file), "--run-dir", str(folder / "run")]) == 0
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_its_status_and_no_promise_to_resume(
    model: Path, number: signal.Signals, status: int, tmp_path: Path
) -> None:
    images, out, log = tmp_path / "images", tmp_path / "o.parquet", tmp_path / "log"
    images.mkdir()
    (chip, *_) = sorted((model / "data" / "train-jpg").glob("*.jpg"))
    for n in range(20_000):
        os.link(chip, images / f"{n}.jpg")
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    arguments = ["--model", str(model), "--images", str(images), "--out", str(out)]
    job = start_job("predict", *arguments, env=env, log=log)
    try:
        wait_until("a line of progress", lambda: b"20,000 images, members" in log.read_bytes(), job, log)
        os.kill(job.pid, number)
        assert job.wait(timeout=60) == status, log.read_text()
    finally:
        end_job(job)
        shutil.rmtree(images)
    said = log.read_text()
    assert "the same command starts over" in said
    for unwanted in ("Traceback", "SIGABRT", "Fatal", "continues where"):
        assert unwanted not in said, said
    assert not out.exists()
