"""What docs/data.md says, done as it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.support import REPOSITORY, read_json
from tests.tiffs import write_tiff

from canopy.config import DataConfig, Experiment, VariantConfig, derive
from canopy.data.sources import list_images
from canopy.runtime.console import Console
from canopy.stages import prepare
from canopy.stages.context import StageContext
from canopy.storage.run_dir import RunDir

MANUAL = (REPOSITORY / "platform" / "docs" / "data.md").read_text()
SIZE, ROWS = 32, 80


def block(language: str, words: str) -> str:
    """The code block of the manual that holds ``words``."""
    (found,) = (code for code in re.findall(rf"```{language}\n(.*?)```", MANUAL, re.S) if words in code)
    return str(found)


@pytest.mark.usefixtures("ray_here")
def test_kaggles_tiffs_of_four_bands_are_prepared_by_the_recipe(tmp_path: Path) -> None:
    recipe = DataConfig.model_validate(yaml.safe_load(block("yaml", "train-tif-v2"))["data"])
    rng, lines = np.random.default_rng(0), ["image_name,tags"]
    bands_NHWC = rng.integers(0, 12_000, (ROWS, SIZE, SIZE, 4)).astype(np.uint16)
    (tmp_path / "train-tif-v2").mkdir()
    for n, bands_HWC in enumerate(bands_NHWC):
        (tmp_path / "train-tif-v2" / f"train_{n}.tif").write_bytes(
            write_tiff(bands_HWC, photometric=1 + n % 2)  # 2: some programs call four bands RGB, too
        )
        lines.append(f"train_{n},{'clear primary' if n % 2 else 'haze primary water'}")
    (tmp_path / "train_v2.csv").write_text("\n".join(lines))
    data = derive(recipe, root=str(tmp_path), image_size=SIZE, val_fraction=0.5)

    listing = list_images(data, str(tmp_path))
    assert listing.ids == [f"train_{n}" for n in range(ROWS)]
    assert listing.uris[0] == str(tmp_path / "train-tif-v2" / "train_0.tif")
    assert listing.tags[1] == ("clear", "primary")

    config = Experiment(data=data, variants=(VariantConfig(name="v"),))
    context = StageContext(config, RunDir(str(tmp_path / "run")), Console())
    prepare.run(context)
    catalogue = prepare.load_catalogue(context)
    assert catalogue.ids == listing.ids
    red_green_blue = bands_NHWC[..., [2, 1, 0]]  # stored are blue, green, red and near infrared
    expected_NHWC = np.minimum(red_green_blue / 10_001 * 256, 255).astype(np.uint8)
    np.testing.assert_array_equal(np.load(tmp_path / "run" / "prepare" / "chips.npy"), expected_NHWC)
    validation = read_json(tmp_path / "run" / "prepare" / "validation.json")
    assert validation["modes"] == {"TIFF with 4 bands of 16 bits": ROWS}
    assert not any("nearly black" in note for note in validation["notes"])


@pytest.fixture
def extended(tmp_path: Path) -> dict[str, str]:
    """The environment of a copy of the library that has the manual's own source, put in as it says."""
    copy = tmp_path / "platform" / "canopy"
    shutil.copytree(REPOSITORY / "platform" / "canopy", copy, ignore=shutil.ignore_patterns("__pycache__"))
    example = block("python", "def _sidecars")
    (case,) = re.findall(r'`(case "sidecars": [^`]*)`', MANUAL)
    for file, anchor, added in (
        ("config/data.py", '"webdataset", "huggingface"\n', '"webdataset", "huggingface", "sidecars"\n'),
        ("data/sources.py", "def _folders(", f"{example}\n\ndef _folders("),
        ("data/sources.py", "        case _:\n", f"        {case}\n        case _:\n"),
    ):
        text = (copy / file).read_text()
        assert text.count(anchor) == 1, anchor
        (copy / file).write_text(text.replace(anchor, added))
    return {**os.environ, "PYTHONPATH": str(copy.parent)}


@pytest.fixture
def sidecars(tmp_path: Path) -> Path:
    """Images with a JSON file beside each."""
    images = tmp_path / "root" / "chips"
    images.mkdir(parents=True)
    for n in range(ROWS):
        pixels = np.random.default_rng(n).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"c{n:02}.png")
        labels = ["forest", "river"] if n % 2 else ["road"]
        (images / f"c{n:02}.json").write_text(json.dumps({"labels": labels}))
    return tmp_path / "root"


def run(words: list[str], env: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, *words], env=env, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_source_of_ones_own_is_listed(sidecars: Path, extended: dict[str, str]) -> None:
    assert len(block("python", "def _sidecars").splitlines()) <= 15
    code = (
        "import json, sys; from canopy.config import DataConfig; "
        "from canopy.data.sources import list_images; "
        "data = DataConfig(source='sidecars', images='chips', extension='.png'); "
        "found = list_images(data, sys.argv[1]); "
        "print(json.dumps([found.ids, found.uris, found.tags, found.labels.names]))"
    )
    ids, uris, tags, names = json.loads(run(["-c", code, str(sidecars)], extended))
    assert ids == [f"c{n:02}" for n in range(ROWS)]
    assert uris == [str(sidecars / "chips" / f"{name}.png") for name in ids]
    assert tags[:2] == [["road"], ["forest", "river"]]
    assert names == ["forest", "river", "road"]


@pytest.mark.slow
def test_a_source_of_ones_own_is_prepared(sidecars: Path, extended: dict[str, str], tmp_path: Path) -> None:
    data = ["--data.source", "sidecars", "--data.images", "chips", "--data.extension", ".png"]
    places = ["--data.root", str(sidecars), "--run-dir", str(tmp_path / "run"), "--data.val-fraction", "0.5"]
    output = run(["jobs/prepare.py", *data, *places, "--data.image-size", str(SIZE)], extended)
    assert f"{ROWS} images, 3 labels" in output
    chips_NHWC = np.load(tmp_path / "run" / "prepare" / "chips.npy")
    for n, chip_HWC in enumerate(chips_NHWC):
        assert (chip_HWC == np.asarray(Image.open(sidecars / "chips" / f"c{n:02}.png"))).all()
