"""The command ``predict`` on a real Ray: files and directories of shards, resumption, bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.bands import noise, write_raster
from tests.inference.conftest import FOLDS, finished_run
from tests.support import tiny_experiment

import canopy
from canopy.bands import BandStatistics
from canopy.config import BandConfig, derive
from canopy.errors import ConfigError, DataError, InputError, RunDirError
from canopy.inference import job
from canopy.inference.images import list_images
from canopy.inference.job import PredictRequest, batch_job, predict_images, with_limit
from canopy.inference.load import open_run
from canopy.inference.shards import BatchJob
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.storage.run_dir import RunDir

GOOD = [f"{'deeper/' if n % 2 else ''}{n}.png" for n in range(7)]
BAD = ["broken.jpg", "empty.png"]


@pytest.fixture
def folder(images_NHWC: NDArray[np.uint8], tmp_path: Path) -> Path:
    """Images at two depths, two that cannot be read, and files that are no images."""
    directory = tmp_path / "images"
    (directory / "deeper").mkdir(parents=True)
    for name, image_HWC in zip(GOOD, images_NHWC, strict=True):
        Image.fromarray(image_HWC).save(directory / name)
    (directory / "broken.jpg").write_bytes(b"no image")
    (directory / "empty.png").write_bytes(b"")
    (directory / "notes.txt").write_text("no image")
    return directory


@pytest.fixture
def request_of(finished: RunDir, folder: Path, tmp_path: Path) -> PredictRequest:
    """A request that writes a directory; one process holds the networks."""
    return PredictRequest(
        finished.root, str(folder), str(tmp_path / "out"), max_bad_fraction=0.25, cpus_per_actor=4
    )


@pytest.fixture
def four_per_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three shards of nine images."""
    monkeypatch.setattr(job, "rows_per_shard", lambda _: 4)


def content(directory: Path) -> dict[str, bytes]:
    """Every file of a directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.mark.usefixtures("ray_here", "four_per_shard")
def test_shards_hold_the_predictions_and_a_lost_one_is_made_again(
    request_of: PredictRequest,
    finished: RunDir,
    images_NHWC: NDArray[np.uint8],
    capsys: pytest.CaptureFixture[str],
) -> None:
    request = replace(request_of, member_probabilities=True, embeddings=True)
    out = Path(request.out)
    assert predict_images(request, Console()) == 7
    said = capsys.readouterr().out
    assert "left out broken.jpg: not an image of a known kind" in said
    assert "left out empty.png: the file is empty" in said
    assert "images 9 of 9" in said

    table = pq.read_table(out)
    order = np.argsort(GOOD)
    assert table["id"].to_pylist() == [GOOD[n] for n in order]
    expected = canopy.load(finished.root).predict(
        images_NHWC[order], member_probabilities=True, embeddings=True
    )
    found = table.to_pandas().drop(columns="id")
    wanted = expected.to_pandas().drop(columns="id")
    assert list(found.columns) == list(wanted.columns)
    for name in found.columns:
        np.testing.assert_allclose(
            np.stack(found[name].tolist()).astype(float),
            np.stack(wanted[name].tolist()).astype(float),
            atol=1e-5,
        )
    assert json.loads((out / "_done.json").read_text()) == {"images": 7, "unreadable": 2}
    whole = content(out)
    assert set(whole) == {
        "_job.json", "_done.json", "part-000000.parquet", "part-000001.parquet", "part-000002.parquet",
        "_bad/part-000000.parquet", "_bad/part-000001.parquet", "_bad/part-000002.parquet",
    } - {"_bad/part-000000.parquet"}  # fmt: skip

    assert predict_images(request, Console()) == 7
    assert "done already" in capsys.readouterr().out
    (out / "part-000001.parquet").unlink()
    assert predict_images(request, Console()) == 7
    assert "5 of 9 images are done already" in capsys.readouterr().out
    assert content(out) == whole


@pytest.mark.usefixtures("ray_here")
def test_one_file_is_completed_from_the_shards_of_a_refused_start(
    request_of: PredictRequest, finished: RunDir, images_NHWC: NDArray[np.uint8], tmp_path: Path
) -> None:
    file = tmp_path / "o.parquet"
    with pytest.raises(DataError, match=r"Image broken\.jpg must be readable \(at most 10\.0% of 9 may not"):
        predict_images(replace(request_of, out=str(file), max_bad_fraction=0.1), Console())
    assert not file.exists()
    assert predict_images(replace(request_of, out=str(file)), Console()) == 7, "its shard is there already"
    table = files.read_table(str(file))
    assert files.metadata(table) == {"labels": '["common", "half", "some", "rare"]'}
    expected = canopy.load(finished.root).predict(images_NHWC)
    rows = [int(Path(name).stem) for name in table["id"].to_pylist()]
    for k, label in enumerate(("common", "half", "some", "rare")):
        np.testing.assert_allclose(table[f"prob:{label}"].to_numpy(), expected.probs_NK[rows, k], atol=1e-5)
        np.testing.assert_array_equal(table[label].to_numpy(), expected.decisions_NK[rows, k])
    assert [path.name for path in tmp_path.glob("o*")] == ["o.parquet"], "the shards are gone"


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_table_names_the_images_of_a_csv(
    request_of: PredictRequest, finished: RunDir, images_NHWC: NDArray[np.uint8], tmp_path: Path
) -> None:
    text, listed = str(tmp_path / "o.csv"), str(tmp_path / "few.parquet")
    files.write_table(listed, pa.table({"id": ["b", "a"], "uri": ["images/0.png", "images/deeper/1.png"]}))
    assert predict_images(replace(request_of, images=listed, out=text), Console()) == 2
    read = pyarrow.csv.read_csv(text)
    assert read["id"].to_pylist() == ["a", "b"]
    expected = canopy.load(finished.root).predict(images_NHWC)
    np.testing.assert_allclose(read["prob:half"].to_numpy(), expected.probs_NK[[1, 0], 1], atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_bad_fraction": float("nan")}, "--max-bad-fraction must be a share"),
        ({"max_bad_fraction": -0.1}, "--max-bad-fraction must be a share"),
        ({"max_bad_fraction": 1.1}, "--max-bad-fraction must be a share"),
        ({"max_image_mb": 0.0}, "--max-image-mb must be 1 or more"),
        ({"gpus_per_actor": -1.0}, "--gpus-per-actor must be 0 to 64"),
        ({"cpus_per_actor": 0}, "--cpus-per-actor must be 1 to 1024"),
        ({"cpus_per_actor": 2000}, "--cpus-per-actor must be 1 to 1024. Got: 2000"),
        ({"out": "o.csv", "embeddings": True}, "--out must be Parquet with --embeddings"),
        ({"out": "o.json"}, r"--out must be a directory, or a file that ends in \.parquet or \.csv"),
        ({"model": "s3://key:hidden@b/run"}, "--model must not hold credentials"),
        ({"images": "s3://key:hidden@b/run"}, "--images must not hold credentials"),
        ({"out": "s3://b/run?secret_key=hidden"}, "--out must not hold credentials"),
    ],
)
def test_what_is_wrong_in_itself_is_refused_before_anything_is_read(
    fields: dict[str, object], said: str, tmp_path: Path
) -> None:
    request = PredictRequest("no-run", "no-images", str(tmp_path / "out"))
    with pytest.raises(InputError, match=said) as refused:
        predict_images(replace(request, **fields), Console())  # type: ignore[arg-type]
    assert "hidden" not in str(refused.value)


def test_a_relative_path_in_a_submitted_job_is_refused(
    request_of: PredictRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_SUBMISSION_ID", "x")
    for option in ("model", "images", "out"):
        with pytest.raises(ConfigError, match=f"--{option} must be absolute or a URI in a submitted job"):
            predict_images(replace(request_of, **{option: "relative"}), Console())  # type: ignore[arg-type]


def test_what_is_wrong_with_the_run_or_the_images_is_refused_before_ray_starts(
    request_of: PredictRequest, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="--images must be a directory"):
        predict_images(replace(request_of, images=str(tmp_path / "none")), Console())
    with pytest.raises(RunDirError, match=r"must hold a config\.yaml"):
        predict_images(replace(request_of, model=str(tmp_path)), Console())
    with pytest.raises(ConfigError, match="members must be variants of the run"):
        predict_images(replace(request_of, members=("resnett",)), Console())
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match="--out must be empty or new"):
        predict_images(replace(request_of, out=str(other)), Console())


BANDS = (
    BandConfig(name="red", file="{id}/{id}_B04.tif", range=(0, 4000)),
    BandConfig(name="nir", file="{id}/{id}_B08.tif", range=(0, 4000)),
    BandConfig(name="swir", file="{id}/{id}_B11.tif", range=(0, 4000)),
    BandConfig(name="ndvi", expression="ndvi"),
)


@pytest.fixture(scope="module")
def run_of_patches(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run of patches of one file per band, with random networks."""
    tiny = tiny_experiment(variants=1, trials=0)
    experiment = derive(tiny, data=derive(tiny.data, source="table", root="/data", bands=BANDS), folds=FOLDS)
    levels = {"mean": (33_000.0,) * 4, "std": (18_000.0,) * 4, "low": (1_000.0,) * 4, "high": (64_000.0,) * 4}
    statistics = BandStatistics(
        names=tuple(band.name for band in BANDS),
        dtype="uint16",
        ranges=((0, 4000), (0, 4000), (0, 4000), (-1, 1)),
        median=(33_000.0,) * 4,
        display=(0, 1, 2),
        **levels,
    )
    return finished_run(tmp_path_factory.mktemp("patches"), experiment, statistics)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here", "four_per_shard")
def test_patches_of_one_file_per_band_are_predicted_as_training_read_them(
    run_of_patches: RunDir, tmp_path: Path
) -> None:
    folder, patches = tmp_path / "set", [f"T{n % 2}/p_{n}" for n in range(6)]
    for n, patch in enumerate(patches):
        for file, side in (("B04", 32), ("B08", 32), ("B11", 16)):
            path = folder / patch / f"{patch.rpartition('/')[2]}_{file}.tif"
            write_raster(path, noise(1, side, seed=10 * n + side), pixel=320 / side)
    (folder / "T1" / "p_5" / "p_5_B08.tif").unlink()
    (folder / "T0" / "p_4" / "p_4_B11.tif").write_bytes(b"II*\0")
    out = tmp_path / "out.parquet"
    request = PredictRequest(run_of_patches.root, str(folder), str(out), max_bad_fraction=0.5)
    assert predict_images(replace(request, out=str(tmp_path / "shards")), Console()) == 4
    bad = {row["id"]: row["problem"] for row in pq.read_table(tmp_path / "shards" / "_bad").to_pylist()}
    assert bad["T1/p_5"] == "there is no file p_5_B08.tif"
    assert bad["T0/p_4"].startswith("p_4_B11.tif: ")
    assert predict_images(request, Console()) == 4
    table = pq.read_table(out)
    good = sorted(patches[:4])
    assert table["id"].to_pylist() == good
    expected = canopy.load(run_of_patches.root).predict([str(folder / patch) for patch in good])
    found_NK = np.stack([table[f"prob:{name}"].to_numpy() for name in expected.labels.names], 1)
    assert np.ptp(expected.probs_NK, axis=0).max() > 0.001, "else anything would agree"
    np.testing.assert_allclose(found_NK, expected.probs_NK, atol=1e-5)


def job_of(request: PredictRequest) -> BatchJob:
    """The job that the command makes of a request."""
    run = RunDir(request.model)
    config, ensemble = open_run(run, request.members or None, request.max_members)
    config = with_limit(config, request.max_image_mb)
    return batch_job(request, run, config, ensemble, list_images(request.images))


def test_a_job_is_what_its_shards_depend_on(request_of: PredictRequest, folder: Path) -> None:
    known = job_of(request_of)
    elsewhere = replace(
        request_of, out="x", max_bad_fraction=1.0, cpus_per_actor=2, gpus_per_actor=0.0, max_image_mb=400.0
    )
    assert job_of(elsewhere) == known
    changes: list[dict[str, object]] = [
        {"members": ("resnet",)},
        {"max_members": 2},
        {"precision": "bfloat16"},
        {"max_image_mb": 1.0},
        {"embeddings": True},
        {"member_probabilities": True},
    ]
    jobs = [job_of(replace(request_of, **changed)) for changed in changes]  # type: ignore[arg-type]
    (folder / "new.png").write_bytes(b"1")
    jobs.append(job_of(request_of))
    assert known not in jobs
    assert len({*jobs}) == len(jobs)
