"""Splitting a listing: rows that are left out, what stays together, blocks that are impossible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from PIL import Image
from tests.inference.scenes.made import write_scene
from tests.stages.test_prepare import picture, prepared
from tests.support import read_json

from canopy.config import BlockConfig, DataConfig, Experiment, TableConfig, VariantConfig, derive
from canopy.data.duplicates import Duplicates
from canopy.data.listing import Listing
from canopy.errors import ConfigError, DataError
from canopy.labels import LabelSet
from canopy.stages.splitting import check_blocks, split_listing
from canopy.storage.run_dir import RunDir

ROWS, SCENE = 60, 3
PLAIN = Experiment(data=DataConfig(), variants=(VariantConfig(name="v"),))


def listing_of(uris: list[str]) -> Listing:
    """Images of scenes of three, every second one with a river; no mine."""
    return Listing(
        ids=[f"{n}.png" for n in range(len(uris))],
        uris=uris,
        tags=[("forest", "river") if n % 2 else ("forest",) for n in range(len(uris))],
        labels=LabelSet(("forest", "river", "mine")),
        identity="0" * 64,
        groups=[f"scene {n // SCENE}" for n in range(len(uris))],
    )


def test_scenes_and_duplicates_stay_in_one_split_and_left_out_rows_are_gone() -> None:
    listing = listing_of([f"/data/{n}.png" for n in range(ROWS)])
    keep = np.delete(np.arange(ROWS), 1)
    equal = [["0.png", "30.png"]]
    catalogue, notes = split_listing(PLAIN, listing, keep, Duplicates(equal, [], [], []))
    assert catalogue.ids == [listing.ids[n] for n in keep]
    assert catalogue.uris == [listing.uris[n] for n in keep]
    np.testing.assert_array_equal(
        catalogue.targets_NK, listing.labels.encode([listing.tags[n] for n in keep])
    )
    place = dict(zip(keep.tolist(), zip(catalogue.split, catalogue.fold, strict=True), strict=True))
    assert {split for split, _ in place.values()} == {"train", "val", "test"}
    for first in range(0, ROWS, SCENE):
        assert len({place[n] for n in range(first, first + SCENE) if n in place}) == 1
    assert place[0] == place[30], "their scenes are joined by a pair of equal chips"
    assert any("mine has no positive in test" in note for note in notes)


def with_blocks(blocks: BlockConfig) -> Experiment:
    table = TableConfig(id="file", path="file", labels="labels", separator=";")
    data = DataConfig(
        source="table", root="/data", csv="labels.csv", images="chips", table=table, blocks=blocks
    )
    return Experiment(data=data, variants=(VariantConfig(name="v"),))


def test_impossible_blocks_are_refused_and_none_are_no_problem(tmp_path: Path) -> None:
    file = tmp_path / "0.png"
    file.write_bytes(b"no raster")
    listing = listing_of([str(file)])
    check_blocks(PLAIN, listing)
    with pytest.raises(DataError, match=r"a georeference for every chip. Got: none for 0\.png"):
        check_blocks(with_blocks(BlockConfig(metres=640)), listing)
    with pytest.raises(ConfigError, match=r"data\.blocks\.crs"):
        check_blocks(with_blocks(BlockConfig(metres=640, crs="EPSG:4326")), listing)


@pytest.mark.usefixtures("ray_here")
def test_spatial_blocks_keep_neighbors_in_one_split(tmp_path: Path) -> None:
    """A strip of 12 by 10 chips of 320 m in blocks of 640 m; chips without a place are refused at once."""
    root, lines = tmp_path / "root", ["file,labels"]
    for n in range(120):
        row, column = divmod(n, 12)
        place = Affine(10, 0, 640_000 + 320 * column, 0, -10, 5_120_000 - 320 * row)
        write_scene(root / "chips" / f"{n}.tif", picture(n), transform=place)
        lines.append(f"{n}.tif,{'forest' if n % 3 else 'forest;river'}")
    (root / "labels.csv").write_text("\n".join(lines))
    config = with_blocks(BlockConfig(metres=640))
    config = derive(config, data=derive(config.data, root=str(root), image_size=32, val_fraction=0.35))
    catalogue = prepared(config, RunDir(str(tmp_path / "run")))
    sides: dict[tuple[int, int], set[str]] = {}
    for name, split in zip(catalogue.ids, catalogue.split.tolist(), strict=True):
        row, column = divmod(int(name.removesuffix(".tif")), 12)
        sides.setdefault((row // 2, column // 2), set()).add(split)
    assert len(sides) == 30
    assert all(len(parts) == 1 for parts in sides.values())
    notes = read_json(tmp_path / "run" / "prepare" / "validation.json")["notes"]
    assert any(note.startswith("30 spatial blocks of 640 m, the largest of 4 chips") for note in notes)
    assert any("test chips touch a training chip" in note for note in notes)

    Image.fromarray(picture(0)).save(root / "chips" / "plain.png")
    (root / "labels.csv").write_text("\n".join([lines[0], "plain.png,forest", *lines[1:]]))
    with pytest.raises(DataError, match=r"a georeference for every chip. Got: none for plain.png"):
        prepared(config, RunDir(str(tmp_path / "other")))
    assert not (tmp_path / "other" / "prepare" / "chips.npy.part").exists()
