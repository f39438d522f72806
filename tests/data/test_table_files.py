"""Table files: what is read, and one clear error for what is not."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.listings import TABLE, kaggle

from canopy.config import TableConfig, derive
from canopy.data.sources import list_images
from canopy.data.table_files import read_rows
from canopy.errors import DataError, InputError

BAD_TABLES = {
    "no tags": (
        "image_name,labels\na,x\n",
        "must have the columns image_name and tags. Got: image_name, labels",
    ),
    "no ids": (
        "file,tags\na.jpg,x\n",
        "must have the columns image_name and tags. Got: file, tags. Rename the column, or name it: "
        "--data.table.id COLUMN.",
    ),
    "another separator": ("image_name;tags\na;x\n", "Got: image_name;tags"),
    "empty": ("", "must have the columns image_name and tags. Got: none"),
    "no rows": ("image_name,tags\n\n", "must hold at least one row"),
    "too many cells": ("image_name,tags\na,x,y\n", "line 2 must have 2 cells. Got: 3: a,x,y. Quote cells"),
    "too few cells": (
        "image_name,tags\na\n",
        "line 2 must have 2 cells. Got: 1: a. Complete the line (data.table.delimiter is ',').",
    ),
    "no name": ("image_name,tags\na,x\n,y\n", "line 3 must name an image"),
    "no labels": ("image_name,tags\na,\nb,\n", "must give a label to some image"),
    "a quote that never ends": (
        'image_name,tags\na,x\nb,"y\n' + "c,a long row of labels\n" * 7000,
        "line 3 must be a row of a CSV. Got: a cell that goes on to the end of the file. Look for a",
    ),
    "a quote that ends with the file": (
        'image_name,tags\na,x\nb,"y\nc,z\n',
        "line 3 must be a row of a CSV. Got: a cell that",
    ),
    "same column": ("image_name,tags,tags\na,x,y\n", "must have distinct columns. Got: tags twice"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_tables(tmp_path: Path, name: str) -> None:
    table, message = BAD_TABLES[name]
    with pytest.raises(DataError) as error:
        list_images(kaggle(tmp_path, table), str(tmp_path))
    assert message in str(error.value)


def test_columns_of_other_names_are_named_by_options(tmp_path: Path) -> None:
    config = kaggle(tmp_path, "file,classes,part\na,x,train\n")
    message = r"Rename the columns, or name them: --data\.table\.id COLUMN, --data\.table\.labels COLUMN\.$"
    with pytest.raises(DataError, match=message):
        list_images(config, str(tmp_path))
    named = TableConfig(id="file", labels="classes")
    assert list_images(derive(config, table=named), str(tmp_path)).ids == ["a"]
    with pytest.raises(DataError, match=r"Rename the column, or name it: --data\.table\.split COLUMN\.$"):
        list_images(derive(config, table=derive(named, split="split")), str(tmp_path))


def test_a_table_in_another_encoding(tmp_path: Path) -> None:
    config = kaggle(tmp_path, TABLE)
    (tmp_path / "train_v2.csv").write_bytes(TABLE.encode("utf-16"))
    with pytest.raises(DataError, match="must be UTF-8 text"):
        list_images(config, str(tmp_path))


def test_a_folder_in_place_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "labels.parquet").mkdir()
    config = kaggle(tmp_path, TABLE, csv="labels.parquet")
    with pytest.raises(
        DataError, match=r"data\.csv must name a file in data\.root. Got: .*labels\.parquet.* Put the t"
    ):
        list_images(config, str(tmp_path))


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("source", ["kaggle", "table"])
def test_another_delimiter_is_named_and_then_read(tmp_path: Path, source: str, delimiter: str) -> None:
    config = derive(kaggle(tmp_path, TABLE.replace(",", delimiter)), source=source)
    with pytest.raises(DataError) as error:
        list_images(config, str(tmp_path))
    assert f"Set data.table.delimiter to {delimiter!r}" in str(error.value)
    remedied = derive(config, table=TableConfig(delimiter=delimiter))
    assert list_images(remedied, str(tmp_path)).ids == ["a", "b", "c"]


def test_a_tab_may_be_given_as_typed_in_a_shell() -> None:
    assert TableConfig(delimiter="\\t").delimiter == "\t"


def test_cells_of_any_length(tmp_path: Path) -> None:
    wide = "1.234567 2.345678," * 9000
    table = "image_name,tags,geometry\n" + "".join(f'{name},x,"{wide}"\n' for name in "abc")
    assert list_images(kaggle(tmp_path, table), str(tmp_path)).ids == ["a", "b", "c"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_tables(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    config = kaggle(tmp_path, TABLE)
    (tmp_path / "train_v2.csv").write_bytes(pack(TABLE.encode()))
    assert list_images(config, str(tmp_path)).ids == ["a", "b", "c"]
    (tmp_path / "train_v2.csv").write_bytes(pack(TABLE.encode())[:-5])
    with pytest.raises(DataError, match="must be a complete compressed file"):
        list_images(config, str(tmp_path))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("t.xlsx", "Export it as CSV"), ("t.zip", "Unpack it"), ("t.csv", "Unpack it, or export it")],
)
def test_workbooks_and_archives(tmp_path: Path, name: str, remedy: str) -> None:
    config = kaggle(tmp_path, TABLE, csv=name)
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(range(256)))
    with pytest.raises(DataError, match=f"must be a CSV or Parquet file. .* {remedy}.* set data.csv to "):
        list_images(config, str(tmp_path))


def test_a_parquet_file_by_another_name_and_the_reverse(tmp_path: Path) -> None:
    config = kaggle(tmp_path, TABLE)
    content = (tmp_path / "train_v2.csv").rename(tmp_path / "t.parquet").read_bytes()
    with pytest.raises(
        InputError, match=r"must be a Parquet file\. .* Save it as Parquet, or name it \.csv if"
    ):
        list_images(derive(config, csv="t.parquet"), str(tmp_path))
    pq.write_table(pa.table({"image_name": ["a"], "tags": ["x"]}), tmp_path / "train_v2.csv")
    with pytest.raises(DataError, match=r"Got: a Parquet file\. Name it \.parquet and set data\.csv"):
        list_images(config, str(tmp_path))
    (tmp_path / "train_v2.csv").rename(tmp_path / "u.parquet")
    assert list_images(derive(config, csv="u.parquet"), str(tmp_path)).ids == ["a"]
    (tmp_path / "t.csv").write_bytes(content)
    assert list_images(derive(config, csv="t.csv"), str(tmp_path)).ids == ["a", "b", "c"]


def test_the_index_of_pandas_is_no_column(tmp_path: Path) -> None:
    table = ",image_name,water,road\n0,a,1,0\n1,b,0,1\n2,c,1,1\n"
    config = derive(kaggle(tmp_path, table), source="table", table=TableConfig(one_hot=("*",)))
    listing = list_images(config, str(tmp_path))
    assert listing.labels.names == ("water", "road")
    assert listing.tags == [("water",), ("road",), ("water", "road")]
    pq.write_table(
        pa.table({"__index_level_0__": [5], "image_name": ["a"], "water": [1]}), tmp_path / "t.parquet"
    )
    rows = list(read_rows(str(tmp_path / "t.parquet"), ["image_name"], ","))
    assert rows == [("row 1", {"image_name": "a", "water": 1})]


def test_a_column_without_a_name_in_the_middle(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a name for every column\. Got: column 2 without a name"):
        list_images(kaggle(tmp_path, "image_name,,tags\na,1,x\n"), str(tmp_path))
