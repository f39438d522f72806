"""``jobs/predict.py``: options are checked first, signals end it cleanly."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
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


@pytest.mark.parametrize("out", ["o.json", "images/a.png", "images/a.png/o.csv", "images/a.png/o"])
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


@pytest.fixture
def many(model: Path, tmp_path: Path) -> Iterator[Path]:
    """A directory of 20,000 images."""
    images = tmp_path / "images"
    images.mkdir()
    (chip, *_) = sorted((model / "data" / "train-jpg").glob("*.jpg"))
    for n in range(20_000):
        os.link(chip, images / f"{n}.jpg")
    yield images
    shutil.rmtree(images)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_its_status_and_the_same_command_goes_on(
    model: Path, many: Path, number: signal.Signals, status: int, tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    arguments = ["--model", str(model), "--images", str(many), "--out", str(out)]
    job = start_job("predict", *arguments, env=env, log=log)
    try:
        wait_until("a shard", lambda: list(out.glob("part-*.parquet")), job, log)
        os.kill(job.pid, number)
        assert job.wait(timeout=60) == status, log.read_text()
    finally:
        end_job(job)
    said = log.read_text()
    assert "the same command continues where this one ended" in said
    for unwanted in ("Traceback", "SIGABRT", "Fatal", "starts over"):
        assert unwanted not in said, said
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    assert 0 < len(before) < 10
    again = start_job("predict", *arguments, env=env, log=log)
    try:
        assert again.wait(timeout=240) == 0, log.read_text()
    finally:
        end_job(again)
    assert "images are done already" in log.read_text()
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    assert len(after) == 10
    assert {name: after[name] for name in before} == before
