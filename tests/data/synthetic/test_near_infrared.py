"""Chips of four bands: red, green and blue as before, and two labels that only the near infrared shows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from canopy.bands import BandLayout
from canopy.config import BandConfig, DataConfig, GenerateConfig, derive
from canopy.data.raster.band_chips import read_band_chip
from canopy.data.sources import list_images
from canopy.data.synthetic.generate import LABELS, chip_id, draw_labels, generate, read_oracle
from canopy.data.synthetic.near_infrared import (
    INFRARED_LABELS,
    INFRARED_RATE,
    REGROWTH,
    STRESSED,
    draw_all_labels,
    labels_of,
    render_four_bands,
)
from canopy.data.synthetic.render import render_chip

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
CONFIG = GenerateConfig(rows=80, size=32, seed=4, min_rate=0.05, near_infrared=True)


def test_the_colors_are_those_of_the_chip_of_three_bands() -> None:
    for row in range(6):
        labels = ("agriculture", "clear", "primary", "road", "water")
        chip = render_four_bands((*labels, STRESSED, REGROWTH), 64, 1, row)
        assert chip.shape == (64, 64, 4)
        assert chip.dtype == np.uint8
        np.testing.assert_array_equal(chip[..., 2::-1], render_chip(labels, 64, 1, row))
        assert chip[..., 3].std() > 0


def test_the_labels_of_before_stay_and_two_come() -> None:
    table, before = draw_all_labels(CONFIG), draw_labels(CONFIG)
    names = labels_of(CONFIG).names
    assert set(names) == {*LABELS.names, *INFRARED_LABELS}
    assert list(names) == sorted(names)
    columns = [names.index(name) for name in LABELS.names]
    for now, then in zip(vars(table).values(), vars(before).values(), strict=True):
        np.testing.assert_array_equal(now[:, columns], then)
    assert draw_all_labels(derive(CONFIG, near_infrared=False)).true_NK.shape[1] == len(LABELS)


def test_the_rates_and_the_noise_of_the_new_labels() -> None:
    config = derive(CONFIG, rows=30_000, miss_rate=0.1, spurious_rate=0.01)
    table, names = draw_all_labels(config), labels_of(config).names
    forest_N = table.true_NK[:, names.index("primary")] == 1
    for name in INFRARED_LABELS:
        k = names.index(name)
        assert table.true_NK[forest_N, k].mean() == pytest.approx(INFRARED_RATE, abs=0.01)
        assert not table.true_NK[~forest_N, k].any()
        for value in (0, 1):
            rows = table.true_NK[:, k] == value
            assert table.written_NK[rows, k].mean() == pytest.approx(
                table.oracle_NK[rows, k].mean(), abs=0.01
            )
    cloudy_N = table.written_NK[:, names.index("cloudy")] == 1
    assert table.written_NK[cloudy_N].sum() == cloudy_N.sum()


def spread(channel_NHW: NDArray[Any]) -> NDArray[np.float64]:
    """Relative spread of a band over a chip, after the finest grain: what a patch or a lot raises."""
    small_N = channel_NHW.reshape(len(channel_NHW), 8, 8, 8, 8).mean((2, 4))
    return np.asarray(small_N.std((1, 2)) / small_N.mean((1, 2)))


@pytest.mark.parametrize("name", INFRARED_LABELS)
def test_only_the_near_infrared_shows_the_new_labels(name: str) -> None:
    labels = [("clear", "primary", *((name,) if n % 2 else ())) for n in range(60)]
    chips = np.stack([render_four_bands(one, 64, 0, n) for n, one in enumerate(labels)]).astype(float)
    truth_N = np.arange(60) % 2
    scores = [roc_auc_score(truth_N, spread(chips[..., band])) for band in range(4)]
    assert scores[3] > 0.9
    assert max(scores[:3]) < 0.7
    twins = [render_four_bands(("clear", "primary"), 64, 0, n)[..., :3] for n in range(60)]
    np.testing.assert_array_equal(chips[..., :3], twins)


def test_water_is_dark_and_forest_bright_in_the_near_infrared() -> None:
    forest, water, cloud = (
        np.mean([render_four_bands(labels, 32, 0, row)[..., 3] for row in range(12)])
        for labels in (("clear", "primary"), ("clear", "water"), ("cloudy",))
    )
    assert water < 0.5 * forest < 0.5 * cloud


def test_the_files_and_their_listing(tmp_path: Path) -> None:
    root = tmp_path / "made"
    generate(CONFIG, root, block_rows=32)
    assert {path.name for path in root.iterdir()} == {
        "train-tif",
        "train_v2.csv",
        "oracle.parquet",
        "generator.json",
    }
    table = draw_all_labels(CONFIG)
    labels = labels_of(CONFIG).decode(table.true_NK)[7]
    path = root / "train-tif" / f"{chip_id(7)}.tif"
    with rasterio.open(path) as file:
        assert file.descriptions == ("blue", "green", "red", "nir")
        chip_HWC = np.moveaxis(file.read(), 0, -1)
    np.testing.assert_array_equal(chip_HWC, render_four_bands(labels, 32, 4, 7))
    with (root / "train_v2.csv").open(newline="") as stream:
        written = [row["tags"].split() for row in csv.DictReader(stream)]
    np.testing.assert_array_equal(labels_of(CONFIG).encode(written), table.written_NK)
    ids, probs_NK = read_oracle(root, labels_of(CONFIG))
    assert len(ids) == CONFIG.rows
    np.testing.assert_array_equal(probs_NK, table.oracle_NK)

    bands = tuple(BandConfig(name=name, band=n) for n, name in ((3, "red"), (4, "nir")))
    config = DataConfig(generate=CONFIG, root=str(root), image_size=32, bands=bands, dtype="uint8")
    listing = list_images(config, str(root))
    assert listing.ids == ids
    layout = BandLayout.of(config)
    assert layout is not None
    read = read_band_chip(listing.uris[7], 32, layout, 10**8)
    np.testing.assert_array_equal(read.levels, chip_HWC[..., 2:])
