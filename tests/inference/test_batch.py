"""Batch inference over a directory of images, on a real Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.csv
import pytest
from numpy.typing import NDArray
from PIL import Image

from canopy.errors import ConfigError, DataError
from canopy.inference.batch import SkippedImage, check_fraction, image_files, predict_folder, refuse_bad
from canopy.inference.model import Model
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.storage.run_dir import RunDir


@pytest.fixture
def directory(images_NHWC: NDArray[np.uint8], tmp_path: Path) -> Path:
    """Images at two depths, two that cannot be read, and files that are no images."""
    folder = tmp_path / "images"
    (folder / "deeper").mkdir(parents=True)
    for n, image_HWC in enumerate(images_NHWC):
        Image.fromarray(image_HWC).save(folder / ("deeper" if n % 2 else ".") / f"{n}.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def test_images_are_found_at_any_depth(directory: Path, tmp_path: Path) -> None:
    upper, lower = ["0.png", "2.png", "4.png", "6.png", "broken.jpg"], ["1.png", "3.png", "5.png"]
    assert image_files(str(directory)) == [*upper, *(f"deeper/{name}" for name in lower), "empty.png"]
    with pytest.raises(DataError, match="must be a directory"):
        image_files(str(tmp_path / "none"))
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="must hold at least one image"):
        image_files(str(tmp_path / "bare"))


@pytest.mark.usefixtures("ray_here")
def test_readable_images_are_scored_and_others_named(
    finished: RunDir,
    images_NHWC: NDArray[np.uint8],
    directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = str(tmp_path / "o.parquet")
    with pytest.raises(DataError, match=r"Image broken\.jpg must be readable \(at most 10\.0% of 9 may not"):
        predict_folder(finished.root, str(directory), out, 0.1, Console())
    assert not files.exists(out)
    assert predict_folder(finished.root, str(directory), out, 0.25, Console()) == 7
    assert "left out broken.jpg: " in capsys.readouterr().out
    table = files.read_table(out)
    ids = table["id"].to_pylist()
    assert sorted(ids) == [name for name in image_files(str(directory)) if name[:2] not in ("br", "em")]
    expected_NK, decided_NK = Model.load(finished).predict(images_NHWC)
    rows = [int(Path(name).stem) for name in ids]
    for k, label in enumerate(("common", "half", "some", "rare")):
        np.testing.assert_allclose(table[f"prob:{label}"].to_numpy(), expected_NK[rows, k], atol=1e-5)
        np.testing.assert_array_equal(table[label].to_numpy(), decided_NK[rows, k])

    text = str(tmp_path / "o.csv")
    predict_folder(finished.root, str(directory), text, 0.25, Console())
    read = pyarrow.csv.read_csv(text)
    assert read.column_names == table.column_names
    assert read["id"].to_pylist() == ids


@pytest.mark.usefixtures("ray_here")
def test_a_directory_without_a_readable_image_gives_an_empty_table(finished: RunDir, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"")
    out = str(tmp_path / "o.parquet")
    assert predict_folder(finished.root, str(folder), out, 1.0, Console()) == 0
    assert files.read_table(out).num_rows == 0


@pytest.mark.parametrize("fraction", [float("nan"), -0.1, 1.1, float("inf")])
def test_what_is_no_share_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="--max-bad-fraction must be a share"):
        check_fraction(fraction)


def test_as_many_unreadable_images_as_allowed_are_let_through() -> None:
    bad = [SkippedImage("a.png", "empty"), SkippedImage("b.png", "empty")]
    refuse_bad(bad, 200, 0.01)
    with pytest.raises(DataError, match=r"Image a\.png"):
        refuse_bad(bad, 199, 0.01)
