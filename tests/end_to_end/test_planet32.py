"""The lower data plane on real chips: four-ink JPEGs and real label statistics."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from canopy.config import DataConfig
from canopy.data.duplicates import find_duplicates
from canopy.data.raster.decode import decode
from canopy.data.raster.try_decode import try_decode
from canopy.data.sources import list_images
from canopy.data.split import assign_splits
from canopy.data.validate import validate

SHARED = Path(os.environ.get("CANOPY_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
PLANET = SHARED / "planet32"
pytestmark = pytest.mark.skipif(
    not (PLANET / "train-jpg.zip").exists(),
    reason=f"the real chips are not at {PLANET} (set CANOPY_SHARED_DATA)",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 400 rows with their images, in Kaggle's layout."""
    directory = tmp_path_factory.mktemp("planet32")
    rows = (PLANET / "train_v2.csv").read_text().splitlines()[:401]
    (directory / "train_v2.csv").write_text("\n".join(rows))
    with zipfile.ZipFile(PLANET / "train-jpg.zip") as archive:
        for row in rows[1:]:
            archive.extract(f"train-jpg/{row.split(',')[0]}.jpg", directory)
    return directory


def test_real_chips_are_read_checked_and_as_bright_as_they_should_be(root: Path) -> None:
    config = DataConfig(source="kaggle", root=str(root), image_size=32)
    listing = list_images(config, str(root))
    chips, found = zip(*(try_decode(Path(uri).read_bytes(), 32) for uri in listing.uris), strict=True)
    chips_NHWC = np.stack(chips)
    validation = validate(listing, found, find_duplicates(listing.ids, chips_NHWC, listing.tags))
    assert validation.bad == {}
    assert validation.modes == {"CMYK": 400}
    assert validation.warnings() == []
    assert ("clear", "partly_cloudy") in validation.exclusive
    assert np.allclose(chips_NHWC.mean((0, 1, 2)) / 255, (0.311, 0.341, 0.299), atol=0.03)


def test_real_chips_are_to_the_bit_what_pil_gives(root: Path) -> None:
    for path in sorted((root / "train-jpg").iterdir())[:100]:
        data = path.read_bytes()
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert (decode(data, 32).pixels == expected).all()


def test_real_labels_split_within_one_of_ideal() -> None:
    rows = [row.split(",")[1].split() for row in (PLANET / "train_v2.csv").read_text().splitlines()[1:]]
    names = sorted({tag for row in rows for tag in row})
    targets_NK = np.array([[name in row for name in names] for row in rows], np.uint8)
    split, fold = assign_splits(targets_NK, DataConfig(), folds=5)
    total_K = targets_NK.sum(0)
    for name, share in (("train", 0.65), ("val", 0.15), ("test", 0.2)):
        assert np.abs(targets_NK[split == name].sum(0) - share * total_K).max() <= 1
    train = split == "train"
    for k in range(5):
        assert np.abs(targets_NK[train & (fold == k)].sum(0) - targets_NK[train].sum(0) / 5).max() <= 1


def test_real_chips_do_not_chain_into_giant_groups() -> None:
    """Plain forest looks alike everywhere: by their hashes alone, 186 of these chips would be one group."""
    rows = [line.split(",") for line in (PLANET / "train_v2.csv").read_text().splitlines()[1:20_001]]
    ids, tags = [name for name, _ in rows], [tuple(labels.split()) for _, labels in rows]
    with zipfile.ZipFile(PLANET / "train-jpg.zip") as archive:
        chips_NHWC = np.stack([decode(archive.read(f"train-jpg/{name}.jpg"), 32).pixels for name in ids])
    brighter_NHWC = np.minimum(chips_NHWC[::200] * 1.1, 255).astype(np.uint8)  # copies that are to be found
    ids += [f"brighter {name}" for name in ids[::200]]
    found = find_duplicates(ids, np.concatenate([chips_NHWC, brighter_NHWC]), tags + tags[::200])
    sizes = np.unique(found.groups(ids), return_counts=True)[1]
    assert (sizes >= 2).sum() >= 95
    assert sizes.max() <= 3
