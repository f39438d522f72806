"""Listings: rows that cannot be used, files that are missing, and the identity of a data set."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from tests.listings import TABLE, kaggle

from canopy.config import DataConfig, derive
from canopy.data.label_table import Entry
from canopy.data.listing import Listing, SourceLocation, _change, join_with_files
from canopy.data.sources import list_images
from canopy.errors import DataError, InputError
from canopy.inference.images import list_images as list_unlabelled
from canopy.storage.local_files import FileState


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
        "a (line 6)": "line 2 names the same image; merge the labels of both into one row "
        "(raising data.max_bad_fraction drops this row's labels)",
        "e": f"there is no file {folder}/e.jpg ({folder} holds a.jpg)",
    }
    listing = list_images(kaggle(tmp_path, TABLE + "d,cloudy\ne,cloudy\n"), str(tmp_path))
    assert [("holds a.jpg" in why) for why in listing.bad.values()] == [True, False], "once is enough"


def test_a_wrong_extension_names_a_file_that_exists(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must name an image .* a: there is no file .*holds a\.jpg\)\. Cor"):
        list_images(kaggle(tmp_path, TABLE, extension=".tif", max_bad_fraction=1.0), str(tmp_path))


def test_a_source_without_lines_counts_its_rows(tmp_path: Path) -> None:
    kaggle(tmp_path, TABLE)
    entries = [Entry("a", ("x",), "a.jpg"), Entry("b", ("x",), "b.jpg"), Entry("a", ("y",), "c.jpg")]
    listing = join_with_files(entries, SourceLocation("mine", str(tmp_path / "train-jpg")))
    assert listing.ids == ["a", "b"]
    assert list(listing.bad) == ["a (row 3)"]
    assert listing.bad["a (row 3)"].startswith("row 1 names the same image; merge the labels of both")


def test_nothing_drawn_but_images_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "images" / "forest").mkdir(parents=True)
    for n in range(400):
        (tmp_path / "images" / "forest" / f"{n}.png").write_bytes(b"x")
    (tmp_path / "images" / "forest" / "only.jpg").write_bytes(b"x")
    config = DataConfig(source="folders", images="images", limit=64)
    with pytest.raises(
        DataError, match=r"must name an image that can be used. Got: forest/.*png: it is not a \.jpg"
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
    unlabelled = list_unlabelled(str(tmp_path / "images"))
    assert unlabelled.ids.at(np.arange(3)) == ["forest/a.jpg", "forest/b.jpg", "forest/c.jpg"]


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


def test_a_file_of_the_same_size_and_another_time_changes_the_identity(tmp_path: Path) -> None:
    config = kaggle(tmp_path, TABLE)
    first = list_images(config, str(tmp_path))
    assert list_images(config, str(tmp_path)) == first
    picture = tmp_path / "train-jpg" / "b.jpg"
    changed_ns = picture.stat().st_mtime_ns + 1_000_000
    picture.write_bytes(b"y" * 10)
    os.utime(picture, ns=(changed_ns, changed_ns))
    second = list_images(config, str(tmp_path))
    assert second.identity != first.identity
    assert second.former_identity == first.former_identity


def test_a_run_directory_of_an_earlier_version_keeps_its_identity(tmp_path: Path) -> None:
    """It was computed from ids, labels and sizes, by this expression."""
    listing = list_images(kaggle(tmp_path, TABLE), str(tmp_path))
    rows = zip(listing.ids, listing.tags, strict=True)
    old = hashlib.sha256(b"".join(json.dumps([n, sorted(t), 10]).encode() for n, t in rows)).hexdigest()
    assert listing.former_identity == old
    assert listing.identity_in(old) == old
    assert listing.identity_in(None) == listing.identity_in("other") == listing.identity != old


def test_generated_chips_have_an_identity_without_times(tmp_path: Path) -> None:
    config = derive(kaggle(tmp_path, TABLE), source="generated")
    listing = list_images(config, str(tmp_path))
    assert listing.identity == listing.former_identity


def test_a_storage_without_times_gives_a_hash_of_the_content(tmp_path: Path) -> None:
    kaggle(tmp_path, TABLE)
    place = str(tmp_path / "train-jpg" / "a.jpg")
    assert _change(place, FileState(10, None)) == hashlib.sha256(b"x" * 10).hexdigest()
    assert _change(place, FileState(10, 5)) == 5


def test_a_huge_file_is_named_without_being_read(tmp_path: Path) -> None:
    config = kaggle(tmp_path, TABLE)
    with (tmp_path / "train-jpg" / "b.jpg").open("wb") as file:
        file.truncate(4 << 30)  # takes no room on the disk
    assert list_images(config, str(tmp_path)).bad == {
        "b": "the file has 4,295 MB, more than data.max_image_mb (400)"
    }


def test_control_characters_in_labels_and_ids(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels without control characters .* Got: 'ro\\x1b\[31mad'"):
        list_images(kaggle(tmp_path, TABLE + "d,ro\x1b[31mad\n"), str(tmp_path))
    with pytest.raises(DataError, match=r"without control characters and line breaks. Got: 'x\\u2028y'"):
        list_images(kaggle(tmp_path, TABLE, labels=("clear", "x\u2028y")), str(tmp_path))
    listing: Listing = list_images(kaggle(tmp_path, TABLE + "d\x07,cloudy\n"), str(tmp_path))
    assert listing.bad == {"'d\\x07'": "its name holds control characters"}
