"""The images of a batch job: those under a directory, those of a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.bands import layout

from canopy.bands import SEVERAL_FILES
from canopy.config import BandConfig
from canopy.errors import DataError, InputError
from canopy.inference.images import ImageList, list_images
from canopy.storage import files


def names(images: ImageList) -> list[str]:
    return images.at(np.arange(len(images)))[0]


def test_images_are_found_at_any_depth_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("z.png", "a/b.JPG", "a/c/d.tif", "a.webp", ".hidden.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    images = list_images(str(tmp_path))
    assert names(images) == sorted(["a.webp", "a/b.JPG", "a/c/d.tif", "z.png"])
    assert images.at(np.array([3, 0])) == (["z.png", "a.webp"], [f"{tmp_path}/z.png", f"{tmp_path}/a.webp"])
    with pytest.raises(DataError, match="must be a directory, or a table"):
        list_images(str(tmp_path / "none"))
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="must hold at least one image"):
        list_images(str(tmp_path / "bare"))


def test_the_digest_follows_names_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    first = list_images(str(tmp_path)).digest
    assert list_images(str(tmp_path)).digest == first
    (tmp_path / "a.png").write_bytes(b"12")
    second = list_images(str(tmp_path)).digest
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    assert len({first, second, list_images(str(tmp_path)).digest}) == 3


def write(table: Path, **columns: Sequence[str | int | None]) -> str:
    files.write_table(str(table), pa.table(columns))
    return str(table)


def test_a_table_names_images_by_id_or_by_address(tmp_path: Path) -> None:
    table = write(tmp_path / "t.parquet", id=["b", "a"], uri=["chips/1.png", "s3://bucket/2.png"])
    images = list_images(table)
    uris = ["s3://bucket/2.png", f"{tmp_path}/chips/1.png"]
    assert images.at(np.arange(2)) == (["a", "b"], uris)
    images = list_images(write(tmp_path / "u.parquet", uri=["/x/2.png", "1.png"]))
    assert images.at(np.arange(2)) == (["/x/2.png", "1.png"], ["/x/2.png", f"{tmp_path}/1.png"])


def test_a_table_that_cannot_serve_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    cases: list[tuple[dict[str, Sequence[str | int | None]], str]] = [
        ({"path": ["a.png"]}, "must have a column uri"),
        ({"uri": []}, "must be a column of text"),
        ({"uri": [1]}, "must be a column of text"),
        ({"uri": ["a.png", None]}, "nothing in row 2"),
        ({"uri": ["a.png", ""]}, "nothing in row 2"),
        ({"uri": ["a.png", "b.png"], "id": ["x", "x"]}, "x in rows 1 and 2"),
    ]
    for columns, said in cases:
        with pytest.raises(DataError, match=said):
            list_images(write(path, **columns))
    path.write_text("id,uri\na,a.png\n")
    with pytest.raises(InputError, match=r"must be a Parquet file\. .* Save it as Parquet\.$"):
        list_images(str(path))


PATCHES = layout(
    BandConfig(name="red", file="{id}/{id}_B04.tif"), BandConfig(name="nir", file="{id}/{id}_B08.tif")
)


def test_patches_of_one_file_per_band_are_the_images(tmp_path: Path) -> None:
    for name in ("T/p/p_B04.tif", "T/p/p_B08.tif", "T/p/p_labels.json", "q/q_B08.tif", ".h/h_B04.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    images = list_images(str(tmp_path), PATCHES)
    assert names(images) == ["T/p", "q"]
    assert images.at(np.array([0]))[1] == [f"{tmp_path}/T/p"]
    (tmp_path / "q" / "q_B08.tif").write_bytes(b"12")
    assert list_images(str(tmp_path), PATCHES).digest != images.digest
    (tmp_path / "bare").mkdir()
    with pytest.raises(
        DataError, match=r"must hold files like \{id\}/\{id\}_B04\.tif, \{id\}/\{id\}_B08\.tif"
    ):
        list_images(str(tmp_path / "bare"), PATCHES)
    one_file = layout(BandConfig(name="red"), BandConfig(name="nir", band=2))
    assert names(list_images(str(tmp_path), one_file)) == ["T/p/p_B04.tif", "T/p/p_B08.tif", "q/q_B08.tif"]


def test_columns_of_a_table_name_files_of_bands(tmp_path: Path) -> None:
    bands = layout(BandConfig(name="red", file="{id}_B04.tif"), BandConfig(name="vv", column="VV"))
    path = write(tmp_path / "list.parquet", uri=["b", "s/a"], VV=["s3://x/b.tif", "a_vv.tif"])
    images = list_images(path, bands)
    assert images.at(np.arange(2)) == (
        ["b", "s/a"],
        [
            SEVERAL_FILES.join((f"{tmp_path}/b_B04.tif", "s3://x/b.tif")),
            SEVERAL_FILES.join((f"{tmp_path}/s/a_B04.tif", f"{tmp_path}/a_vv.tif")),
        ],
    )
    assert list_images(write(tmp_path / "list.parquet", uri=["b", "s/a"], VV=["c", "a"]), bands).digest != (
        images.digest
    )
    with pytest.raises(DataError, match="must have a column VV, of a band"):
        list_images(write(tmp_path / "bare.parquet", uri=["b"]), bands)
    with pytest.raises(DataError, match=r"VV must name a file in every row.*nothing in row 2"):
        list_images(write(tmp_path / "gap.parquet", uri=["b", "c"], VV=["x", None]), bands)
    with pytest.raises(DataError, match=r"must be a table \.parquet with the columns uri, VV"):
        list_images(str(tmp_path), bands)
