"""Sources: each layout gives the same kind of listing, and bad input one clear error."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.listings import TABLE, kaggle

from canopy.config import DataConfig, TableConfig, derive
from canopy.data import sources
from canopy.data.raster.decode import decode
from canopy.data.sources import list_images
from canopy.errors import DataError


def test_kaggles_layout(tmp_path: Path) -> None:
    listing = list_images(kaggle(tmp_path, TABLE), str(tmp_path))
    assert listing.ids == ["a", "b", "c"]
    assert listing.uris == [str(tmp_path / "train-jpg" / f"{name}.jpg") for name in "abc"]
    assert listing.tags == [("clear", "primary"), ("cloudy",), ("primary", "water", "clear")]
    assert listing.labels.names == ("clear", "cloudy", "primary", "water")
    assert listing.bad == {}
    assert listing.splits is None
    assert listing.groups is None


@pytest.mark.parametrize(
    "table",
    [
        "\ufeff" + TABLE,
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("\n", "\n\n") + " , \n",
        "image_name , tags\n a , clear  primary\nb,cloudy\nc,primary water clear water",
        'tags,other,image_name\n"clear primary","1,2",a\ncloudy,,b\nprimary water clear,,c\n',
        "image_name,tags,,\na,clear primary,,\nb,cloudy,,\nc,primary water clear\n",
    ],
    ids=["mark", "windows", "blank lines", "spaces", "other columns", "empty columns"],
)
def test_what_spreadsheets_do_to_a_table_changes_nothing(tmp_path: Path, table: str) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "other").mkdir()
    plain = list_images(kaggle(tmp_path / "plain", TABLE), str(tmp_path / "plain"))
    other = list_images(kaggle(tmp_path / "other", table), str(tmp_path / "other"))
    assert other.tags == plain.tags
    assert other.former_identity == plain.former_identity  # it depends on no path


def test_the_identity_changes_with_labels_ids_and_files(tmp_path: Path) -> None:
    first = list_images(kaggle(tmp_path, TABLE), str(tmp_path)).identity
    assert list_images(kaggle(tmp_path, TABLE.replace("water", "road")), str(tmp_path)).identity != first
    reordered = "image_name,tags\na,primary clear\nb,cloudy\nc,primary water clear\n"
    former = list_images(kaggle(tmp_path, TABLE), str(tmp_path)).former_identity
    assert list_images(kaggle(tmp_path, reordered), str(tmp_path)).former_identity == former
    config = kaggle(tmp_path, TABLE)
    (tmp_path / "train-jpg" / "b.jpg").write_bytes(b"another picture")
    assert list_images(config, str(tmp_path)).identity != first


def test_the_arrangement_changes_with_splits_groups_and_label_order_alone(tmp_path: Path) -> None:
    config = tables(tmp_path)["hot.csv"]
    table = (tmp_path / "hot.csv").read_text()
    first = list_images(config, str(tmp_path))
    for old, new in (
        (",dev,", ",train,"),
        (",dev,A", ",dev,B"),
        ("bare soil,river\n1,north/1", "river,bare soil\n1,north/1"),
    ):
        (tmp_path / "hot.csv").write_text(table.replace(old, new))
        other = list_images(config, str(tmp_path))
        assert other.arrangement != first.arrangement, (old, new)
        assert (other.identity == first.identity) == ("bare" not in old)


def test_labels_with_blanks_are_not_taken_for_two(tmp_path: Path) -> None:
    config = tables(tmp_path)["names.csv"]
    table = (tmp_path / "names.csv").read_text()
    first = list_images(config, str(tmp_path)).identity
    (tmp_path / "names.csv").write_text(table.replace("bare soil; river", "bare; soil; river"))
    assert list_images(config, str(tmp_path)).identity != first


def test_an_image_without_labels_is_an_image(tmp_path: Path) -> None:
    listing = list_images(kaggle(tmp_path, "image_name,tags\na,\nb,cloudy\n"), str(tmp_path))
    assert listing.tags == [(), ("cloudy",)]


def test_a_limit_draws_rows_by_seed(tmp_path: Path) -> None:
    (tmp_path / "train-jpg").mkdir()
    names = [f"n{n}" for n in range(200)]
    for name in names:
        (tmp_path / "train-jpg" / f"{name}.jpg").write_bytes(b"x")
    table = "image_name,tags\n" + "".join(f"{name},x\n" for name in names)
    draws = [
        list_images(kaggle(tmp_path, table, limit=64, seed=seed), str(tmp_path)).ids for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert len(draws[0]) == 64
    assert draws[0] == sorted(draws[0], key=names.index)
    assert draws[0] != names[:64]


def test_a_fixed_label_set_keeps_its_order(tmp_path: Path) -> None:
    names = ("water", "primary", "cloudy", "clear", "road")
    assert list_images(kaggle(tmp_path, TABLE, labels=names), str(tmp_path)).labels.names == names


def tables(root: Path) -> dict[str, DataConfig]:
    """One data set in three kinds of table."""
    (root / "chips" / "north").mkdir(parents=True)
    for name in ("north/1.png", "north/2.png", "3.png"):
        (root / "chips" / name).write_bytes(b"x")
    (root / "names.csv").write_text(
        "key|file|what|part|scene\n"
        "1|north/1.png|bare soil; river|train|A\n"
        "2|north/2.png|river|validation|A\n"
        f"3|{root}/chips/3.png||TEST|\n"
    )
    (root / "hot.csv").write_text(
        "key,file,part,scene,bare soil,river\n"
        "1,north/1.png,train,A,1,1\n2,north/2.png,dev,A,0,1.0\n3,3.png,test,,0,\n"
    )
    columns = {
        "key": [1, 2, 3],
        "file": ["north/1.png", "north/2.png", f"file://{root}/chips/3.png"],
        "what": [["bare soil", "river"], ["river"], []],
        "part": ["train", "val", "test"],
        "scene": ["A", "A", None],
    }
    pq.write_table(pa.table(columns), root / "names.parquet")
    common = {"id": "key", "path": "file", "split": "part", "group": "scene"}
    tables = {
        "names.csv": common | {"labels": "what", "separator": ";", "delimiter": "|"},
        "hot.csv": common | {"one_hot": ("*",)},
        "names.parquet": common | {"labels": "what"},
    }
    return {
        name: DataConfig.model_validate(
            {"source": "table", "root": str(root), "csv": name, "images": "chips", "table": table}
        )
        for name, table in tables.items()
    }


@pytest.mark.parametrize("name", ["names.csv", "hot.csv", "names.parquet"])
def test_tables_of_any_form(tmp_path: Path, name: str) -> None:
    listing = list_images(tables(tmp_path)[name], str(tmp_path))
    assert listing.ids == ["1", "2", "3"]
    assert listing.tags == [("bare soil", "river"), ("river",), ()]
    assert listing.labels.names == ("bare soil", "river")
    assert listing.splits == ["train", "val", "test"]
    assert listing.groups == ["A", "A", ""]
    assert [Path(uri.removeprefix("file://")).read_bytes() for uri in listing.uris] == [b"x"] * 3


def test_a_one_hot_column_without_positives_stays_a_label(tmp_path: Path) -> None:
    config = tables(tmp_path)["hot.csv"]
    (tmp_path / "hot.csv").write_text("key,file,part,scene,river,mine\n1,3.png,,,1,0\n")
    listing = list_images(config, str(tmp_path))
    assert listing.labels.names == ("river", "mine")
    assert listing.splits is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,3.png,train,,2,0", "line 2, column river must be 0 or 1. Got: 2"),
        ("1,3.png,holdout,,1,0", "line 2 must have train, val, test or nothing as its split. Got: holdout"),
    ],
)
def test_bad_cells(tmp_path: Path, row: str, message: str) -> None:
    config = tables(tmp_path)["hot.csv"]
    (tmp_path / "hot.csv").write_text(f"key,file,part,scene,river,mine\n{row}\n")
    with pytest.raises(DataError) as error:
        list_images(config, str(tmp_path))
    assert message in str(error.value)


def test_a_folder_per_label_set(tmp_path: Path) -> None:
    for name in ("forest+river/1.tif", "forest/sub/1.TIF", "bare soil/1.tif", "forest/readme.txt"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"x")
    config = DataConfig(source="folders", root=str(tmp_path), images="images", extension=".tif")
    listing = list_images(config, str(tmp_path))
    assert dict(zip(listing.ids, listing.tags, strict=True)) == {
        "bare soil/1": ("bare soil",),
        "forest+river/1": ("forest", "river"),
        "forest/sub/1": ("forest",),
    }
    (tmp_path / "images" / "stray.tif").write_bytes(b"x")
    with pytest.raises(DataError, match=r"stray\.tif must lie in a folder named by its labels"):
        list_images(config, str(tmp_path))


def test_no_image_in_a_folder_is_passed_over_in_silence(tmp_path: Path) -> None:
    for name in (
        "forest/1.jpg",
        "forest/2.JPEG",
        "mine/3.jpeg",
        "mine/4.png",
        "mine/5.tif",
        "mine/notes.txt",
    ):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"x")
    listing = list_images(DataConfig(source="folders", images="images"), str(tmp_path))
    assert listing.ids == ["forest/1", "forest/2", "mine/3"]
    assert [Path(uri).name for uri in listing.uris] == ["1.jpg", "2.JPEG", "3.jpeg"]
    assert listing.bad == dict.fromkeys(
        ("mine/4.png", "mine/5.tif"), "it is not a .jpg file (data.extension)"
    )
    (tmp_path / "images" / "forest" / "1.jpeg").write_bytes(b"x")
    listing = list_images(DataConfig(source="folders", images="images"), str(tmp_path))
    assert listing.bad["forest/1 (forest/1.jpg)"] == (
        "forest/1.jpeg has the same name but for its ending; rename or remove one of the two files"
    )


def test_a_limit_draws_from_what_is_passed_over_too(tmp_path: Path) -> None:
    """Else some images of another kind in a large set would stop a quick look at a few of it."""
    for n in range(400):
        name = f"forest/{n}.png" if n % 20 == 0 else f"forest/{n}.jpg"
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"x")
    whole = list_images(DataConfig(source="folders", images="images"), str(tmp_path))
    assert (len(whole), len(whole.bad)) == (380, 20)
    some = list_images(DataConfig(source="folders", images="images", limit=100), str(tmp_path))
    assert len(some) + len(some.bad) == 100
    assert 0 < len(some.bad) < 15
    assert set(some.bad) < set(whole.bad)


def test_a_class_without_images_is_told_of(tmp_path: Path) -> None:
    for name in ("forest", "mine"):
        (tmp_path / "images" / name).mkdir(parents=True)
    (tmp_path / "images" / "forest" / "1.jpg").write_bytes(b"x")
    config = DataConfig(source="folders", root=str(tmp_path), images="images")
    with pytest.raises(
        DataError, match=r"The folder mine must hold a \.jpg image. Got: none. Add images, or"
    ):
        list_images(config, str(tmp_path))


UCMERCED = DataConfig(
    source="ucmerced", csv="LandUse_Multilabeled.txt", images="Images", extension=".tif", image_size=256
)

LABELS_17 = (
    *("airplane", "bare-soil", "buildings", "cars", "chaparral", "court", "dock", "field", "grass"),
    *("mobile-home", "pavement", "sand", "sea", "ship", "tanks", "trees", "water"),
)


def test_uc_merced_as_it_is_distributed(tmp_path: Path) -> None:
    """Scene folders of TIFFs, most of them 256 pixels a side, and a table with tabs and Windows line ends."""
    rng = np.random.default_rng(0)
    scenes = {
        "agricultural": "field",
        "baseballdiamond": "bare-soil buildings grass pavement",
        "river": "water",
    }
    rows = ["\t".join(["IMAGE\\LABEL", *LABELS_17])]
    pixels = {}
    for scene, present in scenes.items():
        (tmp_path / "Images" / scene).mkdir(parents=True)
        for n in range(3):
            side = (247, 256) if (scene, n) == ("river", 2) else (256, 256)
            pixels[f"{scene}{n:02}"] = rng.integers(0, 256, (*side, 3), dtype=np.uint8)
            image = Image.fromarray(pixels[f"{scene}{n:02}"])
            image.save(tmp_path / "Images" / scene / f"{scene}{n:02}.tif")
            rows.append("\t".join([f"{scene}{n:02}", *("01"[k in present.split()] for k in LABELS_17)]))
    (tmp_path / "LandUse_Multilabeled.txt").write_bytes("\r\n".join(rows).encode() + b"\r\n")
    config = derive(UCMERCED, root=str(tmp_path))
    listing = list_images(config, str(tmp_path))
    assert listing.labels.names == LABELS_17
    assert listing.ids == list(pixels)
    assert listing.tags == [tuple(scenes[name[:-2]].split()) for name in pixels]
    for name, uri in zip(listing.ids, listing.uris, strict=True):
        found = decode(Path(uri).read_bytes(), 256)
        assert (found.height, found.width) == pixels[name].shape[:2]
        assert name == "river02" or (found.pixels == pixels[name]).all()


def test_the_example_of_a_source_of_ones_own_works(tmp_path: Path) -> None:
    """The docstring's function, as it stands there."""
    assert sources.__doc__ is not None
    example = textwrap.dedent(sources.__doc__.partition("::\n\n")[2])
    assert len(example.splitlines()) <= 15
    names = dict(vars(sources))
    exec(example, names)
    for name, labels in (("a", ["road"]), ("b", [])):
        (tmp_path / f"{name}.jpg").write_bytes(b"x")
        (tmp_path / f"{name}.json").write_text(json.dumps({"labels": labels}))
    entries = names["_sidecars"](DataConfig(), str(tmp_path))
    assert [(e.id, e.tags, e.file) for e in entries] == [("a", ("road",), "a.jpg"), ("b", (), "b.jpg")]


def test_uc_merced(tmp_path: Path) -> None:
    for name in ("river/river07", "tenniscourt/tenniscourt00"):
        (tmp_path / "Images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "Images" / f"{name}.tif").write_bytes(b"x")
    (tmp_path / "LandUse_Multilabeled.txt").write_text(
        "IMAGE\\LABEL\tairplane\tcourt\twater\t\nriver07\t0\t0\t1\t\ntenniscourt00\t0\t1\t0\n"
    )
    config = derive(UCMERCED, root=str(tmp_path))
    listing = list_images(config, str(tmp_path))
    assert listing.ids == ["river07", "tenniscourt00"]
    assert listing.tags == [("water",), ("court",)]
    assert listing.labels.names == ("airplane", "court", "water")
    assert listing.uris[0].endswith("Images/river/river07.tif")


def test_what_programs_leave_among_the_images_is_no_image(tmp_path: Path) -> None:
    for name in ("forest/1.jpg", ".thumbnails/1.jpg", "__MACOSX/forest/._1.jpg", "forest/.cache/2.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"x")
    listing = list_images(DataConfig(source="folders", images="images"), str(tmp_path))
    assert listing.ids == ["forest/1"]
    assert listing.labels.names == ("forest",)
    assert not listing.bad


def test_options_of_a_table_that_the_source_does_not_read_are_refused(tmp_path: Path) -> None:
    config = DataConfig(source="folders", table=TableConfig(split="part"))
    with pytest.raises(DataError, match=r"data\.table\.split must not be set under data\.source folders"):
        list_images(config, str(tmp_path))
