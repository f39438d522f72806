"""The generated data set as files: layout, CMYK, reproducibility, what is refused."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
from PIL import Image

from canopy.config import GenerateConfig, derive
from canopy.data.synthetic.generate import (
    LABELS,
    chip_id,
    contact_sheet,
    draw_labels,
    encode_jpeg,
    generate,
    read_oracle,
)
from canopy.data.synthetic.render import render_chip
from canopy.errors import DataError

CONFIG = GenerateConfig(rows=80, size=32, seed=4, min_rate=0.05, cmyk_fraction=0.25)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chips") / "made"
    generate(CONFIG, root, block_rows=32)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_layout_is_kaggles(data_set: Path) -> None:
    names = {path.name for path in data_set.iterdir()}
    assert names == {"train-jpg", "train_v2.csv", "oracle.parquet", "generator.json"}
    with (data_set / "train_v2.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["image_name", "tags"]
    assert [row["image_name"] for row in rows] == [f"train_{n}" for n in range(80)]
    written_NK = LABELS.encode([row["tags"].split() for row in rows])
    np.testing.assert_array_equal(written_NK, draw_labels(CONFIG).written_NK)
    assert {path.name for path in (data_set / "train-jpg").iterdir()} == {f"train_{n}.jpg" for n in range(80)}


def test_every_file_is_the_chip_cmyk_or_not(data_set: Path) -> None:
    true_NK = draw_labels(CONFIG).true_NK
    modes = []
    for row, labels in enumerate(LABELS.decode(true_NK)):
        with Image.open(data_set / "train-jpg" / f"{chip_id(row)}.jpg") as image:
            modes.append(image.mode)
            pixels = np.asarray(image.convert("RGB"), float)
        chip = render_chip(labels, CONFIG.size, CONFIG.seed, row)
        assert np.abs(pixels - chip).mean() < 8, (row, image.mode)  # inverted, it would be off by 100
    assert 8 <= modes.count("CMYK") <= 32
    assert set(modes) == {"CMYK", "RGB"}


def test_cmyk_inks_are_stored_inverted_behind_an_adobe_marker() -> None:
    chip = render_chip(("clear", "primary", "water"), 64, 0, 0)
    data = encode_jpeg(chip, cmyk=True)
    assert b"Adobe" in data
    stored = simplejpeg.decode_jpeg(data, colorspace="CMYK").astype(float)  # as it stands in the file
    assert np.abs(stored[..., :3] - chip).mean() < 4  # cyan says 255 where there is no cyan ink
    assert stored[..., 3].min() > 250
    with Image.open(io.BytesIO(data)) as image:
        inks = np.asarray(image, float)
        rgb = np.asarray(image.convert("RGB"), float)
    assert np.abs(inks[..., :3] - (255 - chip.astype(float))).mean() < 4
    plain = np.asarray(Image.open(io.BytesIO(encode_jpeg(chip, cmyk=False))), float)
    assert np.abs(rgb - plain).mean() < 4


def test_oracle_file(data_set: Path) -> None:
    schema = pq.read_schema(data_set / "oracle.parquet")
    assert schema.field("id").type == pa.string()
    assert schema.field("probs").type == pa.list_(pa.float32(), 17)
    assert json.loads(schema.metadata[b"labels"]) == list(LABELS.names)
    ids, probs_NK = read_oracle(data_set)
    assert ids == [f"train_{n}" for n in range(80)]
    np.testing.assert_array_equal(probs_NK, draw_labels(CONFIG).oracle_NK)


def test_no_oracle_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"oracle\.parquet must exist"):
        read_oracle(tmp_path)


def test_same_config_same_bytes_in_blocks_and_in_other_processes(data_set: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        generate(CONFIG, tmp_path / "parallel", run=pool.map, block_rows=17)
    assert contents(tmp_path / "parallel") == contents(data_set)


def test_other_seed_other_data(data_set: Path, tmp_path: Path) -> None:
    generate(derive(CONFIG, rows=64, seed=5), tmp_path)
    ours, theirs = contents(tmp_path), contents(data_set)
    assert all(ours[name] != theirs[name] for name in ours)


def test_a_smaller_set_is_the_beginning_of_a_larger_one(data_set: Path, tmp_path: Path) -> None:
    generate(derive(CONFIG, rows=64), tmp_path)
    ours, theirs = contents(tmp_path), contents(data_set)
    assert all(ours[name] == theirs[name] for name in ours if name.endswith(".jpg"))
    assert theirs["train_v2.csv"].startswith(ours["train_v2.csv"])


def test_finished_set_is_not_made_again(data_set: Path) -> None:
    def refuse(*_: object) -> list[int]:
        raise AssertionError("rendered again")

    before = {path: path.stat().st_mtime_ns for path in data_set.rglob("*")}
    generate(CONFIG, data_set, run=refuse)
    assert {path: path.stat().st_mtime_ns for path in data_set.rglob("*")} == before


def test_killed_half_way_leaves_no_table_and_is_completed_later(data_set: Path, tmp_path: Path) -> None:
    def die_after_one(work, blocks):  # type: ignore[no-untyped-def]
        yield work(blocks[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(CONFIG, tmp_path, run=die_after_one, block_rows=32)
    assert len(list((tmp_path / "train-jpg").iterdir())) == 32
    assert not (tmp_path / "train_v2.csv").exists()
    generate(CONFIG, tmp_path)
    assert contents(tmp_path) == contents(data_set)


def test_another_config_in_the_same_place_is_refused(data_set: Path) -> None:
    before = contents(data_set)
    with pytest.raises(DataError, match=r"same config. Got: seed 4 instead of 9"):
        generate(derive(CONFIG, seed=9), data_set)
    assert contents(data_set) == before


def test_somebody_elses_data_is_never_written_over(tmp_path: Path) -> None:
    table = tmp_path / "train_v2.csv"
    table.write_text("image_name,tags\ntrain_0,haze primary\n")
    with pytest.raises(DataError, match=r"no generator\.json"):
        generate(CONFIG, tmp_path)
    assert list(tmp_path.iterdir()) == [table]
    with pytest.raises(DataError, match="must be a directory"):
        generate(CONFIG, table)


def test_contact_sheet_has_a_row_per_label() -> None:
    sheet = contact_sheet(derive(CONFIG, rows=200), per_label=3, zoom=1)
    rows = np.asarray(sheet).reshape(17, -1, sheet.width, 3)
    assert (rows[:, :32, 130:162] != 255).any((1, 2, 3)).all()
