"""Label tables: quotation marks, blanks, tabs, and paths, as people write them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tests.listings import TABLE, kaggle

from canopy.config import TableConfig, derive
from canopy.data.sources import Listing, list_images


def listed(root: Path, text: str, columns: TableConfig) -> Listing:
    return list_images(derive(kaggle(root, text), source="table", table=columns), str(root))


def test_blanks_before_a_quoted_cell_are_nothing_special(tmp_path: Path) -> None:
    table = 'image_name, tags\na, "forest, river"\n'
    assert listed(tmp_path, table, TableConfig(separator=",")).tags == [("forest", "river")]


def test_a_tab_separates_names_that_hold_blanks(tmp_path: Path) -> None:
    table = "image_name,tags\na,dense residential\tairport\n"
    assert listed(tmp_path, table, TableConfig(separator="\t")).tags == [("dense residential", "airport")]


def test_paths_are_found_however_they_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "train-jpg"
    table = f"image_name,tags,file\na,x,./a.jpg\nb,x,{folder}//b.jpg\nc,x,{tmp_path}/./train-jpg/c.jpg\n"
    listing = listed(tmp_path, table, TableConfig(path="file"))
    assert listing.ids == ["a", "b", "c"]
    assert not listing.bad


def test_an_extension_may_be_in_capitals(tmp_path: Path) -> None:
    config = kaggle(tmp_path, TABLE, csv="LABELS.PARQUET")
    pq.write_table(pa.table({"image_name": ["a"], "tags": ["x"]}), tmp_path / "LABELS.PARQUET")
    assert list_images(config, str(tmp_path)).tags == [("x",)]
