"""The data benchmarks at a small size: all contenders do the same work, each command reports its ratios."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jobs.benchmarks.chip_data import make_batch_sampler
from jobs.benchmarks.stream.catalogue import KEY, catalogue
from jobs.benchmarks.stream.epochs import CROP, ours
from jobs.benchmarks.stream.gpu import gpu
from jobs.benchmarks.stream.loaders import CachedBatches, FileBatches
from PIL import Image
from tests.support import REPOSITORY

from canopy.config import AugmentConfig
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.decode_blocks import decode_blocks
from canopy.data.loading.uri_list import UriList
from canopy.errors import ConfigError

SIZE, ROWS = 64, 640


def test_memory_and_time_of_a_row_of_the_catalogue_are_measured(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    catalogue(rows=20_000, repeats=1, out=out)
    notes = {record["note"]: float(record["value"].split()[0]) for record in map(json.loads, out.open())}
    assert 100 < notes["bytes per row"] < 5000
    assert notes["µs of CPU per row"] > 0
    assert len(KEY.format(0)) == 40


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("crop", [CROP[SIZE], None])
def test_all_contenders_deliver_the_same_batches(crop: int | None, tmp_path: Path) -> None:
    for n in range(150):
        pixels = np.random.default_rng(n).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{n:03}.jpg")
    files = tuple(str(path) for path in sorted(tmp_path.glob("*.jpg")))
    cache, augment, sampler = tmp_path / "cache.npy", AugmentConfig(crop=crop), make_batch_sampler(len(files))
    np.save(cache, np.concatenate([block["image"] for block, _ in decode_blocks(files, SIZE)]))
    chips = ChipSource(SIZE, UriList(files), str(cache)), ChipSource(SIZE, UriList(files), None)
    baselines = FileBatches(files, sampler, augment, SIZE), CachedBatches(cache, sampler, augment, SIZE)
    streams = zip(*(ours(source, augment, epochs_=3) for source in chips), strict=True)
    for step, batches in enumerate(streams):
        for rows_n, images in (baseline[step] for baseline in baselines):
            assert images.shape[1:] == (crop or SIZE, crop or SIZE, 3)
            for batch in batches:
                np.testing.assert_array_equal(batch["row"], rows_n)
                np.testing.assert_array_equal(batch["image"], images.numpy())
    assert step + 1 == 3 * sampler.steps_per_epoch


@pytest.fixture(scope="module")
def directory() -> Iterator[str]:
    """Directory for the benchmarks' chips. Its name is short because Ray's sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="cb", ignore_cleanup_errors=True) as folder:
        yield folder


def run(directory: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "jobs/benchmarks/stream", *words]
    env = {**os.environ, "TMPDIR": directory}
    return subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=900)


SMALL = ("--rows", str(ROWS))
FOUND = {
    "epochs": (
        SMALL,
        ["first epoch / DataLoader, files", "as it streams / DataLoader, files"]
        + [f"later epochs / DataLoader, {baseline}" for baseline in ("files", "cache", "cache, no process")],
        [
            f"Ray Data's statistics of the last {name}"
            for name in ("first epoch", "as it streams", "later epochs")
        ],
    ),
    "decode": (
        SMALL,
        ["decode_blocks / bare loop", "decode_blocks / bare loop, files", "kept / bare loop, kept"],
        [],
    ),
    "share": (
        SMALL,
        [f"augmented on the {where}: 3 variants / 1" for where in ("data", "device")],
        [],
    ),
    "first-batch": (SMALL, [], ["DataLoader, files, seconds", "ours, as it streams, seconds"]),
    "memory": (
        ("--store-mb", "80"),
        [f"{name}: peak of the object store / its size" for name in ("decode_blocks", "training batches")],
        ["decode_blocks, peak MB", "training batches, peak MB"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", FOUND)
def test_a_command_reports_its_ratios_and_writes_them(command: str, directory: str, tmp_path: Path) -> None:
    options, ratios, notes = FOUND[command]
    out = tmp_path / "out.jsonl"
    done = run(directory, command, "--repeats", "1", "--sizes", str(SIZE), "--out", str(out), *options)
    assert done.returncode == 0, done.stdout + done.stderr
    records: list[dict[str, Any]] = [json.loads(line) for line in out.read_text().splitlines()]
    for kind, wanted in (("ratio", ratios), ("note", notes)):
        for text in wanted:
            (found, *_) = [record for record in records if text in record.get(kind, "")]
            if kind == "ratio":
                assert [value > 0 for value in found["values"]] == [True], found
            else:
                assert str(found["value"]), found
    for text in ratios:
        assert text.rpartition("/")[2].split()[0] in done.stdout


def test_the_gpu_benchmark_refuses_to_run_without_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, and the benchmark would take minutes on it")
    with pytest.raises(ConfigError, match="The gpu benchmark needs a GPU"):
        gpu()
