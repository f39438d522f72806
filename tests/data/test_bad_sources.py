"""Sources that are wrong: one clear error, or the rows named and left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.listings import TABLE, kaggle

from canopy.config import DataConfig
from canopy.data import sources
from canopy.data.sources import list_images
from canopy.data.tables import Entry
from canopy.errors import DataError, InputError
from canopy.inference.batch import image_files

BAD_TABLES = {
    "no tags": (
        "image_name,labels\na,x\n",
        "must have the columns image_name and tags. Got: image_name, labels",
    ),
    "no ids": (
        "file,tags\na.jpg,x\n",
        "must have the columns image_name and tags. Got: file, tags. Add or rename image_name, or say in "
        "data.table what they are called.",
    ),
    "another separator": ("image_name;tags\na;x\n", "Got: image_name;tags"),
    "empty": ("", "must have the columns image_name and tags. Got: none"),
    "no rows": ("image_name,tags\n\n", "must hold at least one row"),
    "too many cells": ("image_name,tags\na,x,y\n", "line 2 must have 2 cells. Got: 3: a,x,y"),
    "too few cells": ("image_name,tags\na\n", "line 2 must have 2 cells"),
    "no name": ("image_name,tags\na,x\n,y\n", "line 3 must name an image"),
    "no labels": ("image_name,tags\na,\nb,\n", "must give a label to some image"),
    "a quote that never ends": (
        'image_name,tags\na,x\nb,"y\n' + "c,a long row of labels\n" * 7000,
        "line 3 must be a row of a CSV. Got: field larger than field limit (131072). Look for a",
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


def test_a_table_in_another_encoding(tmp_path: Path) -> None:
    config = kaggle(tmp_path, TABLE)
    (tmp_path / "train_v2.csv").write_bytes(TABLE.encode("utf-16"))
    with pytest.raises(DataError, match="must be UTF-8 text"):
        list_images(config, str(tmp_path))


def test_missing_root_table_and_folder(tmp_path: Path) -> None:
    config = kaggle(tmp_path, TABLE)
    with pytest.raises(DataError, match=r"data\.root must be a directory that exists. Got: .*nowhere"):
        list_images(config, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"data\.images must be a folder in data\.root. Got: .*jpgs"):
        list_images(kaggle(tmp_path, TABLE, images="jpgs"), str(tmp_path))
    with pytest.raises(DataError, match=r"data\.csv must name a file in data\.root. Got: .*labels\.csv"):
        list_images(kaggle(tmp_path, TABLE, csv="labels.csv"), str(tmp_path))


def test_rows_that_cannot_be_used_are_named_and_left_out(tmp_path: Path) -> None:
    table = TABLE + "d,cloudy\na,water\ne,clear\n"
    listing = list_images(kaggle(tmp_path, table, labels=("clear", "primary", "water")), str(tmp_path))
    assert listing.ids == ["a", "c"]
    assert listing.tags[0] == ("clear", "primary"), "the first row of an id counts"
    folder = tmp_path / "train-jpg"
    assert listing.bad == {
        "b": "'cloudy' is not in data.labels (Known: clear, primary, water)",
        "d": "'cloudy' is not in data.labels (Known: clear, primary, water)",
        "a (line 6)": "line 2 has its id",
        "e": f"there is no file {folder}/e.jpg ({folder} holds a.jpg)",
    }
    listing = list_images(kaggle(tmp_path, TABLE + "d,cloudy\ne,cloudy\n"), str(tmp_path))
    assert [("holds a.jpg" in why) for why in listing.bad.values()] == [True, False], "once is enough"


def test_a_wrong_extension_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must name an image .* a: there is no file .*holds a\.jpg\)\. Cor"):
        list_images(kaggle(tmp_path, TABLE, extension=".tif", max_bad_fraction=1.0), str(tmp_path))


def test_a_source_that_knows_no_lines_counts_its_rows(tmp_path: Path) -> None:
    kaggle(tmp_path, TABLE)
    entries = [Entry("a", ("x",), "a.jpg"), Entry("b", ("x",), "b.jpg"), Entry("a", ("y",), "c.jpg")]
    listing = sources.locate(entries, "mine", str(tmp_path / "train-jpg"))
    assert listing.ids == ["a", "b"]
    assert listing.bad == {"a (row 3)": "row 1 has its id"}


def test_nothing_drawn_but_images_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "images" / "forest").mkdir(parents=True)
    for n in range(400):
        (tmp_path / "images" / "forest" / f"{n}.png").write_bytes(b"x")
    (tmp_path / "images" / "forest" / "only.jpg").write_bytes(b"x")
    config = DataConfig(source="folders", images="images", limit=64)
    with pytest.raises(
        DataError, match=r"must name an image that can be used. Got: forest/.*png: it is no \.jpg"
    ):
        list_images(config, str(tmp_path))


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    """As a checkout leaves them whose large files were not fetched."""
    folder = tmp_path / "images" / "forest"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"x")
    (folder / "b.jpg").symlink_to(tmp_path / "annex" / "b")
    (folder / "again").symlink_to(folder)  # would go round for ever
    (folder / "c.jpg").symlink_to("c.jpg")
    os.mkfifo(folder / "d.jpg")  # would be waited for
    listing = list_images(DataConfig(source="folders", images="images"), str(tmp_path))
    assert listing.ids == ["forest/a"]
    assert list(listing.bad) == ["forest/b", "forest/c"]
    assert listing.bad["forest/b"].startswith("there is no file")
    assert listing.bad["forest/b"].endswith("images holds forest/a.jpg)")
    assert image_files(str(tmp_path / "images")) == ["forest/a.jpg", "forest/b.jpg", "forest/c.jpg"]


def test_a_name_that_is_no_text_is_one_clear_error(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "forest"
    folder.mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(folder) + b"/for\xeat.jpg")).write_bytes(b"x")
    with pytest.raises(
        InputError, match=r"A file's name must be UTF-8\. Got: b'forest/for\\xeat\.jpg' in .* Rename it"
    ):
        list_images(DataConfig(source="folders", images="images"), str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_one_clear_error(tmp_path: Path) -> None:
    config = kaggle(tmp_path, TABLE)
    (tmp_path / "train_v2.csv").chmod(0)
    with pytest.raises(DataError, match=r"data\.csv must be a file that can be read"):
        list_images(config, str(tmp_path))
    (tmp_path / "train_v2.csv").chmod(0o600)
    (tmp_path / "train-jpg").chmod(0)
    with pytest.raises(InputError, match="must be a directory that may be read"):
        list_images(config, str(tmp_path))


def test_a_folder_in_place_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "labels.parquet").mkdir()
    config = kaggle(tmp_path, TABLE, csv="labels.parquet")
    with pytest.raises(DataError, match=r"data\.csv must name a file in data\.root. Got: .*labels\.parquet"):
        list_images(config, str(tmp_path))


def test_credentials_are_in_no_message() -> None:
    told = str(DataError("s3://KEY:SECRET@b/labels.csv", "must exist", "s3://KEY:SECRET@b, a@b", "Look."))
    assert told == "s3://b/labels.csv must exist. Got: s3://b, a@b. Look."
    azure = DataError("abfs://c@acct/x?client_secret=abc&tenant=t", "must exist", "", "")
    assert "abc" not in str(azure)
    assert "tenant=t" in str(azure)
