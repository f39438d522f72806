"""A trained run at work: it predicts what its training stored; a killed job goes on to the same files."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.support import end_job, start_job, tiny_experiment, wait_until, write_config

import canopy
from canopy.config import derive
from canopy.data.catalogue import Catalogue
from canopy.predictions.io import read_predictions
from jobs import pipeline, predict

IMAGES, SHARD = 12_000, 2048


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, ray_here: None) -> Path:
    """A finished run: two variants in two folds; the second scores eight symmetries of a crop."""
    folder = tmp_path_factory.mktemp("model")
    tiny = tiny_experiment(variants=2, trials=0, epochs=1)
    first, second = tiny.variants
    cropped = derive(second, augment=derive(second.augment, crop=24), tta="d4")
    file = write_config(derive(tiny, variants=(first, cropped), folds=2), folder / "c.yaml")
    assert pipeline.main(["--config", str(file), "--run-dir", str(folder / "run")]) == 0
    return folder / "run"


@pytest.mark.slow
def test_the_model_predicts_what_its_training_stored(run: Path, tmp_path: Path) -> None:
    catalogue = Catalogue.read(str(run / "prepare" / "catalogue.parquet"))
    uri_of = dict(zip(catalogue.ids, catalogue.uris, strict=True))
    stored = read_predictions(str(run / "ensemble" / "test.parquet"))
    model = canopy.load(str(run))
    assert (run / "model.json").exists()
    found = model.predict([uri_of[name] for name in stored.ids.tolist()])
    np.testing.assert_allclose(found.probs_NK, stored.probs_NK, atol=1e-5)
    assert np.ptp(stored.probs_NK) > 0.1

    for name in ("resnet", "resnet-cbam"):
        alone = canopy.load(str(run), members=[name])
        for fold in (0, 1):
            one = read_predictions(str(run / "train" / name / f"fold{fold}" / "test.parquet"))
            chips = alone.decoder.chips([uri_of[each] for each in one.ids.tolist()])
            np.testing.assert_allclose(alone.networks(chips).probs[name][fold], one.probs_NK, atol=1e-5)

    out = tmp_path / "out"
    images = run / "data" / "train-jpg"
    assert predict.main(["--model", str(run), "--images", str(images), "--out", str(out)]) == 0
    table = pq.read_table(out)
    row_of = {name.removesuffix(".jpg"): n for n, name in enumerate(table["id"].to_pylist())}
    rows = [row_of[name] for name in stored.ids.tolist()]
    for k, label in enumerate(stored.labels.names):
        np.testing.assert_allclose(table[f"prob:{label}"].to_numpy()[rows], stored.probs_NK[:, k], atol=1e-5)
        np.testing.assert_array_equal(table[label].to_numpy()[rows], found.decisions_NK[:, k] == 1)


@pytest.mark.slow
def test_a_job_killed_at_five_points_leaves_the_files_of_an_undisturbed_one(
    run: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    chips = sorted((run / "data" / "train-jpg").glob("*.jpg"))
    for n in range(IMAGES):
        os.link(chips[n % len(chips)], images / f"{n:05}.jpg")
    (images / "00017.jpg").unlink()
    (images / "00017.jpg").write_bytes(b"no image")
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    arguments = ["--model", str(run), "--images", str(images), "--max-bad-fraction", "0.01"]

    def start(out: Path, log: Path) -> None:
        job = start_job("predict", *arguments, "--out", str(out), env=env, log=log)
        try:
            assert job.wait(timeout=500) == 0, log.read_text()
        finally:
            end_job(job)

    whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log"
    start(whole, log)
    total = -(-IMAGES // SHARD)
    assert len(list(whole.glob("part-*.parquet"))) == total
    for shards in (0, 1, 2, 3, 5):
        job = start_job("predict", *arguments, "--out", str(killed), env=env, log=log)
        try:
            wait_until(
                f"shard {shards}",
                lambda: (
                    (killed / "_job.json").exists() and len(list(killed.glob("part-*.parquet"))) >= shards  # noqa: B023
                ),
                job,
                log,
            )
            os.killpg(job.pid, signal.SIGKILL)
            job.wait(timeout=60)
        finally:
            end_job(job)
        assert not (killed / "_done.json").exists()
    start(killed, log)
    assert "images are done already" in log.read_text()
    assert content(killed) == content(whole)


def content(directory: Path) -> dict[str, bytes]:
    """Every file of a directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
