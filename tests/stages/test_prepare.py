"""The prepare stage over a folder of every kind of file that real data sets hold, on a real Ray."""

from __future__ import annotations

import io
import resource
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.support import read_json

from canopy.config import (
    DataConfig,
    Experiment,
    SensorConfig,
    TableConfig,
    VariantConfig,
    derive,
)
from canopy.data.catalogue import Catalogue
from canopy.data.loading.chip_source import open_chip_source
from canopy.errors import DataError, RunDirError
from canopy.runtime.console import Console
from canopy.runtime.logging import configure_logging
from canopy.runtime.stage import Stage
from canopy.stages import prepare
from canopy.stages.context import StageContext
from canopy.storage.run_dir import RunDir

pytestmark = pytest.mark.usefixtures("ray_here")
SIZE, ROWS = 32, 120


def prepared(config: Experiment, run_dir: RunDir) -> Catalogue:
    """Run the stage; its catalogue."""
    context = StageContext(config, run_dir, Console())
    prepare.run(context)
    assert prepare.is_done(context)
    return prepare.load_catalogue(context)


def picture(n: int) -> NDArray[np.uint8]:
    """A texture unlike any other, uint8 (SIZE, SIZE, 3)."""
    rng = np.random.default_rng(n)
    coarse, fine = (Image.fromarray(rng.integers(20, 230, (k, k, 3), dtype=np.uint8)) for k in (5, 16))
    layers = [
        np.asarray(i.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float32) for i in (coarse, fine)
    ]
    return np.asarray(0.6 * layers[0] + 0.4 * layers[1], np.uint8)


@pytest.fixture
def config(tmp_path: Path) -> Experiment:
    """Files of many kinds, copies of some, one cut off, with labels in a table."""
    root = tmp_path / "root"
    (root / "chips").mkdir(parents=True)
    lines = ["file,labels,part"]
    for n in range(ROWS):
        image, name = Image.fromarray(picture({11: 10, 13: 12}.get(n, n))), f"{n}.png"
        match n:
            case 5:
                name = "5.jpg"
                image.convert("CMYK").save(root / "chips" / name, quality=95)
            case 6:
                image.convert("L").save(root / "chips" / name)
            case 7:
                image.convert("RGBA").save(root / "chips" / name)
            case 8:
                name = "8.tif"
                deep = np.asarray(image.convert("L")).astype(np.uint16) << 4  # twelve bits
                Image.fromarray(deep).save(root / "chips" / name)
            case 9:
                image.resize((48, 40)).save(root / "chips" / name)
            case 13:  # shows the same as 12
                name = "13.jpg"
                image.save(root / "chips" / name, quality=70)
            case _:
                image.save(root / "chips" / name)
        labels = "forest" if n % 2 else "forest;river"
        lines.append(f"{name},{'river' if n == 11 else labels},{'test' if n == 10 else ''}")
    cut = root / "chips" / "3.png"
    cut.write_bytes(cut.read_bytes()[:200])
    (root / "labels.csv").write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
    table = TableConfig(id="file", path="file", labels="labels", separator=";", split="part")
    data = DataConfig(
        source="table",
        root=str(root),
        csv="labels.csv",
        images="chips",
        table=table,
        image_size=SIZE,
        sensor=SensorConfig(white=4095),
        max_bad_fraction=0.02,
        val_fraction=0.35,
    )
    return Experiment(data=data, variants=(VariantConfig(name="v"),))


def test_everything_is_read_once_named_and_kept_apart(
    config: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = RunDir(str(tmp_path / "run"))
    catalogue = prepared(config, run_dir)
    said = capsys.readouterr().out
    validation = read_json(tmp_path / "run" / "prepare" / "validation.json")
    assert validation["rows"] == ROWS
    assert list(validation["bad"]) == ["3.png"]
    assert "damaged or truncated" in validation["bad"]["3.png"]
    assert validation["unusual"] == {
        "5.jpg": "CMYK",
        "6.png": "L",
        "7.png": "RGBA",
        "8.tif": "TIFF with 1 band of 16 bits",
        "9.png": "48x40",
    }
    assert validation["positives"] == {"forest": ROWS - 2, "river": ROWS // 2 + 1}
    assert validation["duplicates"]["equal"] == [["10.png", "11.png"]]
    assert [pair[:2] for pair in validation["duplicates"]["near"]] == [["12.png", "13.jpg"]]
    assert validation["duplicates"]["disagreeing"] == [["10.png", "11.png"], ["12.png", "13.jpg"]]
    assert any("different labels" in note for note in validation["notes"])
    assert not any("two sides" in note for note in validation["notes"])
    for text in ("images decoded 120 of 120", "skipped 3.png: damaged", "what v will see:"):
        assert text in said

    where = dict(zip(catalogue.ids, catalogue.split.tolist(), strict=True))
    assert where["11.png"] == where["10.png"] == "test", "it follows its copy, whose split was given"
    assert where["12.png"] == where["13.jpg"]
    chips_NHWC = np.load(tmp_path / "run" / "prepare" / "chips.npy")
    assert len(chips_NHWC) == len(catalogue) == ROWS - 1
    row = catalogue.ids.index("8.tif")
    assert (chips_NHWC[row] == np.asarray(Image.fromarray(picture(8)).convert("L"))[..., None]).all()
    assert (chips_NHWC[catalogue.ids.index("20.png")] == picture(20)).all()
    assert len(list((tmp_path / "run" / "prepare").glob("sees-v-*.png"))) == 1
    assert not (tmp_path / "run" / "prepare" / "chips.npy.part").exists()

    prepared(config, run_dir)
    assert "done already: 120 images" in capsys.readouterr().out


def test_chips_are_shared_where_they_fit_and_streamed_where_not(
    config: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = RunDir(str(tmp_path / "run"))
    catalogue = prepared(config, run_dir)
    shared, note = open_chip_source(run_dir, catalogue, config.data)
    kept_NHWC = np.load(tmp_path / "run" / "prepare" / "chips.npy")
    assert shared.resident == str(tmp_path / "run" / "prepare" / "chips.npy")
    assert "chips are mapped into memory by all processes" in note

    small = derive(config, data=derive(config.data, max_cache_gb=(kept_NHWC.nbytes - 1) / 1e9))
    other = RunDir(str(tmp_path / "other"))
    prepared(small, other)
    streamed, note = open_chip_source(other, catalogue, small.data)
    assert streamed.resident is None
    assert "GB decoded are more than data.max_cache_gb, 0.00" in note
    rows = np.arange(len(catalogue))
    np.testing.assert_array_equal(shared.array(), kept_NHWC)
    images_NHWC, problems = streamed.decode_rows(rows)
    np.testing.assert_array_equal(images_NHWC, kept_NHWC)
    assert (problems == "").all()
    Path(catalogue.uris[2]).write_bytes(b"")
    assert streamed.decode_rows(rows[:3])[1].tolist() == ["", "", f"{catalogue.uris[2]}: the file is empty"]
    assert streamed.max_bad_fraction == 0.02


def test_the_sensor_is_part_of_what_was_prepared(config: Experiment) -> None:
    other = derive(config, data=derive(config.data, sensor=SensorConfig(white=4000)))
    moved = derive(config, data=derive(config.data, root="/x"))
    assert prepare.key_of(config, "0", "0") != prepare.key_of(other, "0", "0")
    assert prepare.key_of(config, "0", "0") == prepare.key_of(moved, "0", "0")


def test_16_bits_without_levels_are_reported(config: Experiment, tmp_path: Path) -> None:
    chips = Path(str(config.data.root)) / "chips"
    plain = derive(config, data=derive(config.data, sensor=SensorConfig()))
    prepared(plain, RunDir(str(tmp_path / "run")))
    notes = read_json(tmp_path / "run" / "prepare" / "validation.json")["notes"]
    assert any("1 images of 16 bits are nearly black" in note for note in notes)
    assert Image.open(io.BytesIO((chips / "8.tif").read_bytes())).mode == "I;16"


def test_copies_whose_given_splits_differ_are_reported(config: Experiment, tmp_path: Path) -> None:
    table = Path(str(config.data.root)) / "labels.csv"
    table.write_bytes(table.read_bytes().replace(b"11.png,river,", b"11.png,river,train"))
    catalogue = prepared(config, RunDir(str(tmp_path / "run")))
    where = dict(zip(catalogue.ids, catalogue.split.tolist(), strict=True))
    notes = read_json(tmp_path / "run" / "prepare" / "validation.json")["notes"]
    assert where["10.png"] == "test"
    crossing = f"10.png (test) and 11.png ({where['11.png']}"
    assert any(note.startswith(crossing) and "two sides of a split" in note for note in notes)
    assert (
        Catalogue.read(str(tmp_path / "run" / "prepare" / "catalogue.parquet")).digest() == catalogue.digest()
    )


def test_refused_rows_are_in_the_report(config: Experiment, tmp_path: Path) -> None:
    root = tmp_path / "root"
    table = (root / "labels.csv").read_text()
    (root / "labels.csv").write_text(
        table + "\n2.png,forest,\n2.png,river,\n200.png,river,\n1.png,forrest,\n"
    )
    data = derive(config.data, labels=("forest", "river"))
    run_dir = RunDir(str(tmp_path / "run"))
    report = tmp_path / "run" / "prepare" / "validation.json"
    with pytest.raises(DataError, match=r"Got: 4 of 124, first 2\.png \(line 122\): line 4 names the same"):
        prepared(derive(config, data=data), run_dir)
    validation = read_json(report)
    assert validation["rows"] == ROWS + 4
    assert list(validation["bad"]) == ["2.png (line 122)", "2.png (line 123)", "200.png", "1.png (line 125)"]
    # within the allowed share they are left out; a chip that cannot be read makes it too much again
    with pytest.raises(DataError, match=r"Got: 5 of 124, first"):
        prepared(derive(config, data=derive(data, max_bad_fraction=0.035)), run_dir)
    validation = read_json(report)
    assert len(validation["bad"]) == 5
    assert not (report.parent / "chips.npy.part").exists(), "refused chips take no room"
    catalogue = prepared(derive(config, data=derive(data, max_bad_fraction=0.05)), run_dir)
    assert len(catalogue) == ROWS - 1
    assert any(
        "5 of 124 images are left out: 2.png (line 122)" in note for note in read_json(report)["notes"]
    )


def test_images_may_be_repaired_and_splits_corrected_in_the_same_run_directory(
    config: Experiment, tmp_path: Path
) -> None:
    run_dir, root = RunDir(str(tmp_path / "run")), tmp_path / "root"
    strict = derive(config, data=derive(config.data, max_bad_fraction=0.0))
    with pytest.raises(DataError, match=r"3\.png: damaged or truncated"):
        prepared(strict, run_dir)
    Image.fromarray(picture(3)).save(root / "chips" / "3.png")
    before = prepared(strict, run_dir)
    assert before.split[before.ids.index("50.png")] != "test"
    table = (root / "labels.csv").read_text()
    (root / "labels.csv").write_text(table.replace("50.png,forest;river,", "50.png,forest;river,test"))
    after = prepared(strict, run_dir)
    assert after.split[after.ids.index("50.png")] == "test", "a stage is done for the splits it was given"
    assert run_dir.done(Stage.PREPARE, prepare.key_of(strict, *identity_of(run_dir)))
    Image.fromarray(picture(777)).save(root / "chips" / "3.png")
    with pytest.raises(RunDirError, match="must belong to one data set"):
        prepared(strict, run_dir)


def test_an_interrupted_stage_is_not_marked_as_done(config: Experiment, tmp_path: Path) -> None:
    """Not even for the settings that it was done for before: their files may have been replaced."""
    run_dir = RunDir(str(tmp_path / "run"))
    prepared(config, run_dir)
    key = prepare.key_of(config, *identity_of(run_dir))
    assert run_dir.done(Stage.PREPARE, key)
    catalogue = tmp_path / "run" / "prepare" / "catalogue.parquet"
    catalogue.unlink()
    catalogue.mkdir()  # so that it cannot be written
    other = derive(config, data=derive(config.data, val_fraction=0.4))
    with pytest.raises(IsADirectoryError):
        prepared(other, run_dir)
    assert run_dir.done(Stage.PREPARE, key) is None


def identity_of(run_dir: RunDir) -> tuple[str, str]:
    known = read_json(Path(run_dir.root) / "data.json")
    return known["identity"], known["arrangement"]


def test_chips_without_room_on_the_disk_are_decoded_as_they_stream(
    config: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = RunDir(str(tmp_path / "run"))
    (tmp_path / "run" / "prepare").mkdir(parents=True)
    np.save(tmp_path / "run" / "prepare" / "chips.npy", np.zeros((ROWS - 1, SIZE, SIZE, 3), np.uint8))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (360_000, hard))  # the chips are larger
    try:
        catalogue = prepared(config, run_dir)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "decoded chips are not kept, training decodes on demand" in capsys.readouterr().out
    assert not list((tmp_path / "run" / "prepare").glob("chips.npy*"))
    chips, _ = open_chip_source(run_dir, catalogue, config.data)
    row = catalogue.ids.index("20.png")
    assert (chips.decode_rows(np.array([row]))[0] == picture(20)).all()


def test_a_label_that_no_model_could_learn_leaves_a_report(config: Experiment, tmp_path: Path) -> None:
    run_dir, data = RunDir(str(tmp_path / "run")), derive(config.data, labels=("forest", "river", "mine"))
    with pytest.raises(DataError, match="The label mine must have a positive in train"):
        prepared(derive(config, data=data), run_dir)
    validation = read_json(tmp_path / "run" / "prepare" / "validation.json")
    assert validation["positives"]["mine"] == 0
    assert any("mine has no positive in test" in note for note in validation["notes"])


def test_a_damaged_catalogue_is_named_by_later_stages_and_made_again_by_prepare(
    config: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("driver")
    run_dir = RunDir(str(tmp_path / "run"))
    before = prepared(config, run_dir)
    file = tmp_path / "run" / "prepare" / "catalogue.parquet"
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", bytes(len(whole))):
        file.write_bytes(damaged)
        with pytest.raises(RunDirError, match=r"Run prepare again|Run jobs/prepare\.py"):
            prepare.load_catalogue(StageContext(config, run_dir, Console()))
        assert prepared(config, run_dir).digest() == before.digest()
    assert "catalogue.parquet was changed since it was written" in capsys.readouterr().err


@pytest.mark.parametrize("garbage", ["", "{", "[]", "null", '{"identity": 3}', '"x"'])
@pytest.mark.parametrize("file", ["prepare/done.json", "data.json"])
def test_a_garbled_mark_means_not_done(config: Experiment, tmp_path: Path, file: str, garbage: str) -> None:
    run_dir = RunDir(str(tmp_path / "run"))
    run_dir.claim("0" * 64, 1, "/data")
    run_dir.finish(Stage.PREPARE, prepare.key_of(config, "0" * 64, ""))
    context = StageContext(config, run_dir, Console())
    assert prepare.is_done(context)
    (tmp_path / "run" / file).write_text(garbage)
    assert not prepare.is_done(context)
    with pytest.raises(RunDirError, match=r"Run jobs/prepare\.py with it first"):
        prepare.load_catalogue(context)
