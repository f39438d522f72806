"""Shards as the images of a run: written once, then prepared like any other data set, on a real Ray."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.shards import write_parquet, write_tar
from tests.stages.test_prepare import SIZE, picture, prepared
from tests.support import read_json

from canopy.config import DataConfig, Experiment, VariantConfig
from canopy.data.loading.chip_source import open_chip_source
from canopy.errors import RunDirError
from canopy.storage.run_dir import RunDir

pytestmark = pytest.mark.usefixtures("ray_here")


@pytest.mark.parametrize("source", ["webdataset", "huggingface"])
def test_shards_are_a_data_set_like_others(source: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for shard, name in enumerate(("train-0", "train-1", "test-0")):
        rows = range(40 * shard, 40 * shard + 40)
        images = {n: encoded_png(n) for n in rows}
        labels = {n: ["forest", "river"] if n % 2 else ["forest"] if n % 4 else ["river"] for n in rows}
        if source == "webdataset":
            samples = [(f"{n}", {"png": images[n], "json": {"labels": labels[n]}}) for n in rows]
            write_tar(root / f"{name}.tar", [*samples, *([("none", {"cls": "river"})] if shard == 1 else [])])
        else:
            column = [None if n == 41 else images[n] for n in rows]
            write_parquet(root / f"{name}.parquet", {"image": column, "labels": list(labels.values())})
    options = {"root": str(root), "image_size": SIZE, "max_bad_fraction": 0.02, "val_fraction": 0.35}
    data = DataConfig.model_validate({"source": source, **options})
    run_dir, config = (
        RunDir(str(tmp_path / "run")),
        Experiment(data=data, variants=(VariantConfig(name="v"),)),
    )
    catalogue = prepared(config, run_dir)
    bad = read_json(tmp_path / "run" / "prepare" / "validation.json")["bad"]
    assert list(bad) == (["train-1/none"] if source == "webdataset" else ["train-1/2"])
    assert "it has no image" in next(iter(bad.values()))
    assert catalogue.labels.names == ("forest", "river")
    assert len(catalogue) == (120 if source == "webdataset" else 119)
    assert sorted(name.rpartition("/")[0] for name in np.array(catalogue.ids)[catalogue.split == "test"]) == (
        ["test-0"] * 40
    )
    row = catalogue.ids.index("train-0/7" if source == "webdataset" else "train-0/8")
    chips = open_chip_source(run_dir, catalogue, data)[0].array()
    assert chips is not None
    np.testing.assert_array_equal(chips[row], picture(7))
    assert catalogue.targets_NK[row].tolist() == [1, 1]
    assert prepared(config, run_dir).digest() == catalogue.digest(), "done already"
    (shard_file,), table = root.glob("test-0.*"), tmp_path / "run" / "data" / "samples.parquet"
    before, written = shard_file.stat().st_mtime_ns, table.stat().st_mtime_ns
    shard_file.touch()
    with pytest.raises(RunDirError, match="must hold the images of the shards that this run was made from"):
        prepared(config, run_dir)
    os.utime(shard_file, ns=(before, before))
    assert prepared(config, run_dir).digest() == catalogue.digest()
    assert table.stat().st_mtime_ns == written, "the refused start changed nothing"


def encoded_png(n: int) -> bytes:
    """The picture ``n`` as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(picture(n)).save(stream, "PNG")
    return stream.getvalue()
