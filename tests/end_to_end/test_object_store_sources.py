"""Every layout lies in an object store as on a disk: a real server that speaks S3, on loopback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.shards import jpeg, write_parquet, write_tar

from canopy.config import DataConfig, TableConfig
from canopy.data.raster.decode import decode_image
from canopy.data.shards import unpack_shards
from canopy.data.sources import list_images
from canopy.errors import DataError
from canopy.storage import files

BUCKET, SIZE = "layouts", 16


def put(root: Path, *names: str) -> None:
    """Images unlike each other at ``names``."""
    for n, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(n)
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(root / name)


def kaggle(root: Path) -> DataConfig:
    put(root, *(f"train-jpg/train_{n}.jpg" for n in range(4)))
    table = "image_name,tags\ntrain_2,clear primary\ntrain_0,haze primary road\ntrain_3,cloudy\ntrain_1,\n"
    (root / "train_v2.csv").write_text(table)
    return DataConfig(source="kaggle")


def folders(root: Path) -> DataConfig:
    put(root, *(f"images/{name}" for name in ("forest+river/1.png", "forest/north/1.png", "bare soil/2.png")))
    return DataConfig(source="folders", images="images", extension=".png")


def ucmerced(root: Path) -> DataConfig:
    put(root, *(f"Images/{name}.tif" for name in ("river/river07", "river/river12", "harbor/harbor00")))
    rows = ("IMAGE\\LABEL\tdock\tship\twater", "river07\t0\t0\t1", "harbor00\t1\t1\t1", "river12\t0\t0\t1")
    (root / "LandUse_Multilabeled.txt").write_bytes("\r\n".join(rows).encode())
    return DataConfig(
        source="ucmerced", csv="LandUse_Multilabeled.txt", images="Images", extension=".tif", image_size=256
    )


def parquet(root: Path) -> DataConfig:
    put(root, "chips/a/1.png", "chips/a/2.png", "chips/b/1.png")
    columns = {
        "key": ["k1", "k2", "k3"],
        "file": ["a/1.png", "b/1.png", "a/2.png"],
        "what": [["bare soil", "river"], ["river"], []],
        "part": ["train", "val", ""],
        "scene": ["A", "B", None],
    }
    pq.write_table(pa.table(columns), root / "manifest.parquet")
    table = TableConfig(id="key", path="file", labels="what", split="part", group="scene")
    return DataConfig(source="table", csv="manifest.parquet", images="chips", table=table)


@pytest.fixture(scope="module")
def client(s3_here: str) -> boto3.client:
    made = boto3.client("s3")
    made.create_bucket(Bucket=BUCKET)
    return made


@pytest.mark.parametrize("layout", [kaggle, folders, ucmerced, parquet])
def test_a_layout_is_listed_in_a_bucket_as_on_a_disk(
    layout: Callable[[Path], DataConfig], client: boto3.client, tmp_path: Path
) -> None:
    config, name = layout(tmp_path), layout.__name__
    for path in tmp_path.rglob("*.*"):
        client.upload_file(str(path), BUCKET, f"{name}/{path.relative_to(tmp_path)}")
    there_root = f"s3://{BUCKET}/{name}"
    here, there = list_images(config, str(tmp_path)), list_images(config, there_root)
    assert len(here) >= 3
    assert there.uris == [uri.replace(str(tmp_path), there_root) for uri in here.uris]
    same = replace(there, uris=here.uris, identity=here.identity)
    assert same == here, "ids, labels, splits, groups and former identity; times of change differ"
    for near, far in zip(here.uris, there.uris, strict=True):
        chip = decode_image(files.read_bytes(far), SIZE)
        np.testing.assert_array_equal(chip, decode_image(Path(near).read_bytes(), SIZE))


@pytest.mark.parametrize("source", ["webdataset", "huggingface"])
def test_shards_are_read_from_a_bucket_and_written_to_one(
    source: str, client: boto3.client, tmp_path: Path
) -> None:
    root, config = tmp_path / "set", DataConfig.model_validate({"source": source})
    if source == "webdataset":
        samples = [(f"{n}", {"jpg": jpeg(n), "json": {"labels": ["a", "b"][: n % 3]}}) for n in range(5)]
        for name, mode in (("train-0.tar", "w"), ("val-0.tar.gz", "w:gz")):
            write_tar(root / name, samples, mode)
    else:
        columns = {"image": [jpeg(n) for n in range(5)], "labels": [["a", "b"][: n % 3] for n in range(5)]}
        write_parquet(root / "data" / "train-0.parquet", columns)
    for path in root.rglob("*.*"):
        client.upload_file(str(path), BUCKET, f"{source}/{path.relative_to(root)}")
    there, out = f"s3://{BUCKET}/{source}", f"s3://{BUCKET}/out-{source}"
    unpack_shards(config, str(root), str(tmp_path / "out"), map)
    digest = unpack_shards(config, there, out, map)
    assert digest == unpack_shards(config, there, out, lambda *_: pytest.fail("it is done"))
    near, far = list_images(config, str(tmp_path / "out")), list_images(config, out)
    assert (near.ids, near.tags, near.splits) == (far.ids, far.tags, far.splits)
    assert len(near) == (10 if source == "webdataset" else 5)
    for here, away in zip(near.uris, far.uris, strict=True):
        assert files.read_bytes(away) == Path(here).read_bytes()
    cut = next(path for path in root.rglob("*.*") if path.is_file())
    client.put_object(
        Bucket=BUCKET,
        Key=f"{source}/{cut.relative_to(root)}",
        Body=cut.read_bytes()[: cut.stat().st_size // 2],
    )
    with pytest.raises(DataError, match="must be a complete"):
        unpack_shards(config, there, out, map)


def test_a_local_file_is_copied_to_a_bucket(client: boto3.client, tmp_path: Path) -> None:
    (tmp_path / "map.tif").write_bytes(bytes(range(256)) * 5000)
    files.copy_here(f"s3://{BUCKET}/maps/map.tif", tmp_path / "map.tif")
    assert files.read_bytes(f"s3://{BUCKET}/maps/map.tif") == bytes(range(256)) * 5000
