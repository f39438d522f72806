"""A killed command goes on with the blocks that are missing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import rasterio
from tests.inference.scenes.made import pixels, write_scene
from tests.support import end_job, start_job, wait_until

from canopy.storage.run_dir import RunDir
from jobs import predict


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_blocks_survive_a_kill(finished: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = write_scene(tmp_path / "a.tif", pixels(560, 560))
    command = ["--model", finished.root, "--scene", str(scene), "--resolution", "10", "--block-windows", "5"]
    log, out = tmp_path / "log", tmp_path / "out"
    job = start_job("predict", *command, "--out", str(out), env=dict(os.environ), log=log)
    try:
        blocks = out / "a" / "_blocks"
        wait_until("some blocks", lambda: blocks.exists() and len(list(blocks.glob("0*.npz"))) > 8, job, log)
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    finally:
        end_job(job)
    done = {path.name: path.stat().st_mtime_ns for path in blocks.glob("0*.npz")}
    assert done
    assert predict.main([*command, "--out", str(out)]) == 0
    assert "blocks are done already" in capsys.readouterr().out
    assert predict.main([*command, "--out", str(tmp_path / "whole")]) == 0
    with (
        rasterio.open(out / "a" / "probabilities.tif") as resumed,
        rasterio.open(tmp_path / "whole" / "a" / "probabilities.tif") as whole,
    ):
        np.testing.assert_array_equal(resumed.read(), whole.read())
