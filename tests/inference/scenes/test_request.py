"""The options of the command over scenes: each one out of range is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.inference.scenes.made import arguments, pixels, write_scene

from canopy.storage.run_dir import RunDir
from jobs import predict


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--overlap", "1"], "--overlap must be a share from 0 to 0.9"),
        (["--resolution", "0"], "--resolution must be metres per pixel"),
        (["--crs", "EPSG:0"], "--crs must be scene, or the code"),
        (["--max-resampling", "nan"], "--max-resampling must be a factor"),
        (["--block-windows", "0"], "--block-windows must be 1 to 4096"),
    ],
)
def test_an_option_out_of_range_ends_the_command(
    more: list[str], problem: str, finished: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_scene(tmp_path / "a.tif", pixels(64, 64))
    assert predict.main(arguments(finished, scene, tmp_path / "out", *more)) == 2
    assert problem in capsys.readouterr().err
