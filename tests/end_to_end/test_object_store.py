"""Data and runs in an object store, through a real server that speaks S3, on loopback."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from tests.support import tiny_experiment, write_config

from canopy.config import AugmentConfig, DataConfig, Experiment, derive
from canopy.data.catalogue import Catalogue
from canopy.data.loading.batch_sampler import BatchSampler
from canopy.data.loading.batch_streams import scoring_batches, training_batches
from canopy.data.loading.chip_source import ChipSource, open_chip_source
from canopy.data.loading.decode_blocks import decode_blocks
from canopy.data.loading.uri_list import UriList
from canopy.errors import StorageError
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from jobs import pipeline, prepare

CHIPS, SIZE = 120, 32


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of columns of its own beside a folder of images."""
    root = tmp_path_factory.mktemp("source")
    (root / "chips").mkdir()
    rng = np.random.default_rng(0)
    lines = ["file;classes"]
    for n in range(CHIPS):
        chip = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(chip).save(root / "chips" / f"c{n}.png")
        lines.append(f"c{n}.png;{'clear,primary' if n % 2 else 'haze,water'}{',road' if n % 3 else ''}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def bucket(source: Path, s3_here: str) -> str:
    """A bucket that holds the same under ``survey/``."""
    client = boto3.client("s3")
    client.create_bucket(Bucket="canopy")
    for path in source.rglob("*.*"):
        client.upload_file(str(path), "canopy", f"survey/{path.relative_to(source)}")
    return "s3://canopy"


@pytest.fixture
def strict(s3_here: str, bucket: str) -> Iterator[None]:
    """The server checks who asks, and knows nobody."""

    def allow(requests: str) -> None:
        plain = {"Content-Type": "text/plain"}
        order = urllib.request.Request(f"{s3_here}/moto-api/reset-auth", requests.encode(), plain)
        urllib.request.urlopen(order).close()

    allow("0")
    yield
    allow("inf")


def experiment() -> Experiment:
    table = {"id": "file", "path": "file", "labels": "classes", "separator": ",", "delimiter": ";"}
    places = {"source": "table", "csv": "labels.csv", "images": "chips", "table": table}
    parts = {"image_size": SIZE, "val_fraction": 0.35, "test_fraction": 0.25}
    return derive(tiny_experiment(variants=1), data=DataConfig.model_validate({**places, **parts}))


@pytest.fixture(scope="module")
def runs(
    source: Path, bucket: str, ray_here: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunDir, RunDir]:
    """The same data, prepared from local disk to local disk, and from the bucket to the bucket."""
    folder = tmp_path_factory.mktemp("runs")
    config = str(write_config(experiment(), folder / "c.yaml"))
    places = (str(source), str(folder / "run")), (f"{bucket}/survey", f"{bucket}/runs/first")
    for root, run in places:
        assert prepare.main(["--config", config, "--data.root", root, "--run-dir", run]) == 0
    return RunDir(places[0][1]), RunDir(places[1][1])


def catalogue_of(run_dir: RunDir) -> Catalogue:
    return Catalogue.read(run_dir.path("prepare", "catalogue.parquet"))


def test_a_bucket_is_prepared_as_a_disk_is(runs: tuple[RunDir, RunDir], bucket: str) -> None:
    local, remote = runs
    here, there = catalogue_of(local), catalogue_of(remote)
    assert here.digest() == there.digest()
    assert here.ids == there.ids
    assert len(here) == CHIPS
    np.testing.assert_array_equal(here.targets_NK, there.targets_NK)
    np.testing.assert_array_equal(here.split, there.split)
    np.testing.assert_array_equal(here.fold, there.fold)
    assert {uri.rpartition("/")[0] for uri in there.uris} == {f"{bucket}/survey/chips"}
    names = files.list_files(remote.root, recursive=True)
    assert list(names) == list(files.list_files(local.root, recursive=True))
    for file in ("prepare/chips.npy", "prepare/validation.json"):
        assert files.read_bytes(remote.path(file)) == files.read_bytes(local.path(file))


def test_a_second_start_finds_it_done(
    runs: tuple[RunDir, RunDir], bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files.read_bytes(runs[1].path("prepare", "done.json"))
    assert prepare.main(["--run-dir", runs[1].root, "--data.root", f"{bucket}/survey"]) == 0
    assert "done already: 120 images" in capsys.readouterr().out
    assert files.read_bytes(runs[1].path("prepare", "done.json")) == before


def test_chips_stream_out_of_a_bucket(runs: tuple[RunDir, RunDir], source: Path) -> None:
    remote = runs[1]
    catalogue = catalogue_of(remote)
    shared, _ = open_chip_source(remote, catalogue, experiment().data)
    assert shared.resident is not None
    on_demand = ChipSource(SIZE, UriList(catalogue.uris), None)
    rows = np.arange(len(catalogue))
    for chips in (shared, on_demand):
        images = np.concatenate([batch["image"] for batch in scoring_batches(chips, rows, 50)])
        for image, name in zip(images, catalogue.ids, strict=True):
            np.testing.assert_array_equal(image, np.asarray(Image.open(source / "chips" / name)))
    plan = BatchSampler(rows, 32, seed=1)
    streams = [
        training_batches(chips, plan, AugmentConfig(), rank=0, world_size=1, first_step=0, stop_step=4)
        for chips in (shared, on_demand)
    ]
    for a, b in zip(*streams, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])


def test_a_write_is_seen_whole_or_not_at_all(bucket: str) -> None:
    path = f"{bucket}/atomic/table.parquet"
    files.write_table(path, pa.table({"x": [1, 2]}))
    unwritable = pa.table({"x": pa.array([None], pa.month_day_nano_interval())})  # no Parquet type for it
    with pytest.raises(pa.ArrowNotImplementedError):
        files.write_table(path, unwritable)
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(f"{bucket}/atomic/new.json", {"bad": float("nan")})
    assert files.read_table(path)["x"].to_pylist() == [1, 2]
    assert list(files.list_files(f"{bucket}/atomic")) == ["table.parquet"]


def test_a_reader_never_sees_half_an_object(bucket: str) -> None:
    path = f"{bucket}/large/x"
    contents = [letter * (11 << 20) for letter in (b"a", b"b")]  # beyond pyarrow's parts of 10 MiB
    files.write_bytes(path, contents[0])
    writer = threading.Thread(target=files.write_bytes, args=(path, contents[1]))
    writer.start()
    while writer.is_alive():
        assert files.read_bytes(path) in contents
    assert files.read_bytes(path) == contents[1]


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("s3://canopy/elsewhere", "data.root must be a directory that exists"),
        ("s3://no-such-bucket/survey", "data.root must be a directory that exists"),
    ],
)
def test_a_root_that_is_not_there(
    root: str, message: str, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(["--data.root", root, "--run-dir", str(tmp_path / "run")], (message, root), tmp_path, capsys)


def test_a_run_directory_in_a_bucket_that_is_not_there(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = "s3://no-such-bucket/run"
    words = ["--data.root", f"{bucket}/survey", "--run-dir", run]
    refused(words, (run, "must be reachable", "NO_SUCH_BUCKET", "Check the bucket's name"), tmp_path, capsys)


@pytest.mark.usefixtures("ray_here")
def test_one_object_that_is_refused_is_a_bad_image(bucket: str, source: Path) -> None:
    good = (source / "chips" / "c0.png").read_bytes()
    client = boto3.client("s3")
    for name, kind in {"a": "STANDARD", "b": "GLACIER", "c": "STANDARD"}.items():
        client.put_object(Bucket="canopy", Key=f"archive/{name}.png", Body=good, StorageClass=kind)
    uris = tuple(f"{bucket}/archive/{name}.png" for name in "abcd")
    found = [one for _, inspections in decode_blocks(uris, SIZE) for one in inspections]
    assert [one.mode for one in found] == ["RGB", "", "RGB", ""]
    assert "the object store refuses it" in found[1].problem
    assert "no such file" in found[3].problem.lower() or "not exist" in found[3].problem
    batches = list(scoring_batches(ChipSource(SIZE, UriList(uris), None), np.arange(4), 4))
    assert [bool(problem) for problem in batches[0]["problem"]] == [False, True, False, True]


@pytest.mark.usefixtures("strict")
def test_a_bucket_that_refuses(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data.root", f"{bucket}/survey", "--run-dir", str(tmp_path / "run")]
    refused(words, ("must be reachable", "ACCESS_DENIED", "your credentials"), tmp_path, capsys, status=1)
    for read in (files.read_bytes, files.read_image, files.list_files, files.read_table):
        with pytest.raises(StorageError, match=r"^s3://canopy/survey.* must be reachable.*ACCESS"):
            read(f"{bucket}/survey/labels.csv")
    with pytest.raises(StorageError, match="must be reachable"):
        files.write_bytes(f"{bucket}/x", b"1")


def test_keys_in_an_address_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data.root", "s3://AKIASTRANGER:hush@canopy/survey", "--run-dir", str(tmp_path / "run")]
    refused(words, ("must not hold credentials", "AWS_ACCESS_KEY_ID"), tmp_path, capsys)


def refused(
    words: list[str],
    parts: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    status: int = 2,
) -> None:
    """One line with ``parts``, the exit status, no traceback, no secret."""
    config = write_config(experiment(), tmp_path / "c.yaml")
    assert prepare.main(["--config", str(config), *words]) == status
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "hush" not in error
    for text in parts:
        assert text in error


@pytest.mark.slow
def test_a_whole_run_lives_in_a_bucket(bucket: str, ray_here: None, tmp_path: Path) -> None:
    config = str(write_config(tiny_experiment(), tmp_path / "c.yaml"))
    run = f"{bucket}/runs/whole"
    words = ["--config", config, "--data.root", str(tmp_path / "chips"), "--run-dir", run]
    assert pipeline.main(words) == 0
    assert files.read_json(f"{run}/summary.json")
    assert b"<html" in files.read_bytes(f"{run}/report/index.html")
    assert files.list_files(f"{run}/train/ray", recursive=True)
    assert pipeline.main(words) == 0  # and is found there again


def test_a_question_mark_in_a_name(bucket: str) -> None:
    path = f"{bucket}/odd/what?.jpg"
    files.write_bytes(path, b"x")
    assert files.list_files(f"{bucket}/odd") == {"what?.jpg": 1}
    assert files.read_image(path) == b"x"
