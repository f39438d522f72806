"""Label tables: quotation marks, blanks, tabs, and paths, as people write them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.listings import TABLE, kaggle

from canopy.config import TableConfig, derive
from canopy.data.label_table import Entry, merge_long_form
from canopy.data.listing import Listing
from canopy.data.sources import list_images
from canopy.errors import DataError


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


LONG = "image_name,tags\na,clear\na,primary\nb,cloudy\nc,primary\nc,water\nc,clear\n"


def test_long_form_has_one_row_per_label(tmp_path: Path) -> None:
    listing = list_images(kaggle(tmp_path, LONG), str(tmp_path))
    assert listing.ids == ["a", "b", "c"]
    assert listing.tags == [("clear", "primary"), ("cloudy",), ("primary", "water", "clear")]
    assert not listing.bad


def test_long_form_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    text = "image_name,tags,part\na,clear,train\na,primary,test\nb,cloudy,train\n"
    with pytest.raises(DataError, match="line 3 must give a the same file, split and group as line 2"):
        listed(tmp_path, text, TableConfig(split="part"))


def test_a_few_repeated_ids_are_mistakes_and_not_long_form() -> None:
    single = [Entry(f"n{n}", ("x",), "f") for n in range(30)]
    assert merge_long_form("t", [*single, Entry("n3", ("y",), "f")]) == [*single, Entry("n3", ("y",), "f")]
    several = [Entry("a", ("x", "y"), "f"), Entry("a", ("z",), "f")]
    assert merge_long_form("t", several) == several


def test_known_labels_may_hold_any_separator(tmp_path: Path) -> None:
    table = 'image_name,tags\na,"x,y z"\nb,z\n'
    with pytest.raises(DataError, match=r"column tags, must hold labels between ' ' .* Got: the label 'x,y'"):
        list_images(kaggle(tmp_path, table), str(tmp_path))
    assert list_images(kaggle(tmp_path, table, labels=("x,y", "z")), str(tmp_path)).tags[0] == ("x,y", "z")
