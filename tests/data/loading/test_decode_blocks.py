"""Every image of a data set decoded once, into the cache file or through the object store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from canopy.data.loading.chip_cache import ChipCache
from canopy.data.loading.decode_blocks import CRASHES_DECODER, decode_blocks
from canopy.data.loading.ray_stream import Batch

SIZE, ROWS = 24, 300
POISON = 255
"""Value of all pixels of an image for which :func:`crashing` ends the process."""

Pictures = tuple[tuple[str, ...], np.ndarray]


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    """Image files, one of them damaged, and the chips that they decode to."""
    chips_NHWC = np.random.default_rng(0).integers(0, 256, (ROWS, SIZE, SIZE, 3), np.uint8)
    for n, chip in enumerate(chips_NHWC):
        Image.fromarray(chip).save(tmp_path / f"{n}.png")
    (tmp_path / "7.png").write_bytes(b"\x89PNG and no more")
    chips_NHWC[7] = 0
    return tuple(str(tmp_path / f"{n}.png") for n in range(ROWS)), chips_NHWC


@pytest.mark.usefixtures("ray_here")
def test_chips_are_decoded_into_the_mapped_file(pictures: Pictures, tmp_path: Path) -> None:
    uris, expected_NHWC = pictures
    cache = ChipCache(str(tmp_path / "run" / "chips.npy"))
    chips_NHWC = cache.create(ROWS, SIZE)
    chips_NHWC[7] = 255  # former content must not show where an image is unreadable
    means: dict[int, float] = {}
    bad: list[int] = []
    blocks = decode_blocks(
        uris, SIZE, cache=cache, statistics=lambda c: {"mean": c.mean((1, 2, 3))}, with_images=False
    )
    for batch, found in blocks:
        assert "image" not in batch
        means |= dict(zip(batch["row"].tolist(), batch["mean"].tolist(), strict=True))
        bad += [int(row) for row, one in zip(batch["row"], found, strict=True) if one.problem]
    assert bad == [7]
    np.testing.assert_array_equal(chips_NHWC, expected_NHWC)
    np.testing.assert_array_equal(np.load(cache.building_path), expected_NHWC)
    assert [means[n] for n in range(ROWS)] == pytest.approx(expected_NHWC.mean((1, 2, 3)))
    through_the_store = np.concatenate([batch["image"] for batch, _ in decode_blocks(uris, SIZE)])
    np.testing.assert_array_equal(through_the_store, expected_NHWC)


@pytest.mark.usefixtures("ray_here")
def test_every_image_is_accounted_for(pictures: Pictures, tmp_path: Path) -> None:
    uris = (*pictures[0][10:50], pictures[0][7], str(tmp_path / "absent.png"))
    rows: list[int] = []
    problems: dict[int, str] = {}
    for batch, found in decode_blocks(uris, SIZE):
        rows += batch["row"].tolist()
        problems |= {int(r): i.problem for r, i in zip(batch["row"], found, strict=True) if i.problem}
    assert rows == list(range(42))
    assert sorted(problems) == [40, 41]


def crashing(chips_NHWC: np.ndarray) -> Batch:
    if (chips_NHWC == POISON).all((1, 2, 3)).any():
        os.kill(os.getpid(), signal.SIGKILL)
    return {"mean": chips_NHWC.mean((1, 2, 3))}


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("in_file", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_image_that_ends_its_process_is_found_and_named(
    pictures: Pictures, tmp_path: Path, in_file: bool
) -> None:
    uris, expected_NHWC = pictures[0][5:9], pictures[1][5:9]  # each kill costs the start of a process
    Image.new("RGB", (SIZE, SIZE), (POISON,) * 3).save(tmp_path / "6.png")
    expected_NHWC[1] = 0
    cache = ChipCache(str(tmp_path / "run" / "chips.npy")) if in_file else None
    chips_NHWC = np.empty_like(expected_NHWC) if cache is None else cache.create(4, SIZE)
    problems: dict[int, str] = {}
    rows: list[int] = []
    for batch, found in decode_blocks(uris, SIZE, cache=cache, statistics=crashing, with_images=not in_file):
        rows += batch["row"].tolist()
        problems |= {int(r): i.problem for r, i in zip(batch["row"], found, strict=True) if i.problem}
        assert len(batch["mean"]) == len(batch["row"])
        if not in_file:
            chips_NHWC[batch["row"]] = batch["image"]
    assert rows == list(range(4))
    assert sorted(problems) == [1, 2]
    assert problems[1] == CRASHES_DECODER
    np.testing.assert_array_equal(chips_NHWC, expected_NHWC)


OUT_OF_MEMORY = """
import os, sys

import numpy as np
import ray
from ray._private.utils import get_system_memory, get_used_memory

LIMIT, HOG = 6 << 30, 10 << 30  # Ray and its workers take about 2 GB
threshold = (get_used_memory() + LIMIT) / get_system_memory()
os.environ |= {"RAY_memory_usage_threshold": f"{threshold:.4f}", "RAY_memory_monitor_refresh_ms": "50"}

from canopy.data.loading.decode_blocks import decode_blocks

def hungry(chips_NHWC):
    if (chips_NHWC == 255).all((1, 2, 3)).any():
        kept = [np.ones(32 << 20, np.uint8) for _ in range(HOG >> 25)]
        raise SystemExit(len(kept))
    return {"mean": chips_NHWC.mean((1, 2, 3))}

if __name__ == "__main__":
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    rows, problems = [], {}
    for batch, found in decode_blocks(sys.argv[1:], 24, statistics=hungry):
        rows += batch["row"].tolist()
        problems |= {int(r): i.problem for r, i in zip(batch["row"], found, strict=True) if i.problem}
    assert rows == list(range(len(sys.argv) - 1)), rows
    print(problems)
"""


@pytest.mark.slow
def test_an_image_that_needs_too_much_memory_is_found_and_named(pictures: Pictures, tmp_path: Path) -> None:
    """Ray's memory monitor kills the worker; without bounds Ray would start the task again for ever."""
    Image.new("RGB", (SIZE, SIZE), (POISON,) * 3).save(tmp_path / "20.png")
    (tmp_path / "driver.py").write_text(OUT_OF_MEMORY)
    command = [sys.executable, str(tmp_path / "driver.py"), *pictures[0][19:23]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    last_line = done.stdout.strip().splitlines()[-1]  # Ray reports killed workers on the same stream
    assert last_line == "{1: 'needs more memory than a worker may take'}"
