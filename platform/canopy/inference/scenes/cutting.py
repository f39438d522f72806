"""Cuts a scene into labelled chips: the command ``chips``.

::

    OUT/
      chips/SCENE_00012_00034.tif   rows 12 and columns 34 of the grid of chips; bands and georeference kept
      chips.parquet                 image_name, tags (list of labels), group (scene and block of the grid)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyogrio
import rasterio
import shapely
from affine import Affine
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS
from rasterio.windows import Window

from canopy.config import SensorConfig
from canopy.errors import ConfigError, DataError
from canopy.inference.scenes.reader import MIN_VALID
from canopy.inference.scenes.scene import Scene, check_scene, opened, unreadable
from canopy.inference.scenes.vectors import reprojected
from canopy.storage import files

if TYPE_CHECKING:
    from numpy.typing import NDArray

TABLE, FOLDER = "chips.parquet", "chips"


@dataclass(frozen=True)
class CutRequest:
    """What to cut.

    Args:
        scene: path or URI of the scene.
        labels: file of polygons: GeoPackage, GeoJSON, Shapefile or any other that GDAL reads.
        out: local directory, new or empty.
        size: height and width of a chip, pixels of the scene.
        column: column of the polygons that holds the label.
        min_share: share of a chip that a label must cover to belong to it, above 0 to 1.
        block: chips along the side of a block; the chips of one block are one group.
    """

    scene: str
    labels: str
    out: str
    size: int = 256
    column: str = "label"
    min_share: float = 0.05
    block: int = 4


@dataclass(frozen=True)
class Cut:
    """What was cut: numbers of chips, and of chips by label."""

    chips: int
    left_out: int
    positives: Mapping[str, int]


def cut_scene(request: CutRequest) -> Cut:
    """Write the chips and their table.

    Raises:
        ConfigError: when an option is wrong.
        DataError: when the scene or the polygons cannot be used.
        StorageError: when a store or the disk fails.
    """
    check_request(request)
    sensor = SensorConfig(bands=(1, 1, 1))  # all bands are kept, whatever they are
    scene = check_scene(request.scene, sensor)
    rows, columns = scene.height // request.size, scene.width // request.size
    if not rows or not columns:
        need = f"must be at least as large as a chip of {request.size} pixels"
        raise DataError("The scene", need, f"{scene.width} by {scene.height}", "Give a smaller --size.")
    polygons = read_polygons(request.labels, request.column, scene)
    side = scene.transform.a * request.size
    row_N, column_N = (grid.ravel() for grid in np.mgrid[:rows, :columns])
    left, top = scene.transform.c + column_N * side, scene.transform.f - row_N * side
    boxes_N = shapely.box(left, top - side, left + side, top)
    share_NK = np.column_stack([label_shares(boxes_N, found) for found in polygons.values()])
    has_NK = share_NK >= request.min_share
    folder = Path(request.out) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    names, tags, groups, kept = [], [], [], []
    with opened(scene.address) as dataset:
        for n, (row, column) in enumerate(zip(row_N.tolist(), column_N.tolist(), strict=True)):
            name = f"{scene.name}_{row:05}_{column:05}"
            if not write_chip(dataset, scene, folder / f"{name}.tif", row, column, request.size):
                continue
            kept.append(n)
            names.append(name)
            tags.append([label for label, has in zip(polygons, has_NK[n], strict=True) if has])
            groups.append(f"{scene.name}:{row // request.block}:{column // request.block}")
    table = pa.table({"image_name": names, "tags": pa.array(tags, pa.list_(pa.string())), "group": groups})
    files.write_table(str(Path(request.out) / TABLE), table)
    counts = dict(zip(polygons, has_NK[kept].sum(0).tolist(), strict=True))
    return Cut(len(kept), len(boxes_N) - len(kept), counts)


def check_request(request: CutRequest) -> None:
    """Refuse wrong numbers, and an output that is not new.

    Raises:
        ConfigError: naming the option.
    """
    if not 8 <= request.size <= 4096:
        raise ConfigError("--size", "must be 8 to 4096 pixels", request.size, "Give 256.")
    if not 0 < request.min_share <= 1:
        raise ConfigError("--min-share", "must be above 0 and at most 1", request.min_share, "Give 0.05.")
    if request.block < 1:
        raise ConfigError("--block", "must be 1 or more", request.block, "Give 4.")
    if files.is_uri(request.out):
        raise ConfigError("--out", "must be a local directory", files.shown(request.out), "Copy it later.")
    if files.exists(request.out) and (not files.is_dir(request.out) or any(Path(request.out).iterdir())):
        raise ConfigError("--out", "must be empty or new", request.out, "Choose another directory.")


def read_polygons(path: str, column: str, scene: Scene) -> dict[str, NDArray[Any]]:
    """Disjoint polygons of each label, in the CRS of the scene, labels in alphabetical order.

    Raises:
        DataError: when the file is unreadable, has no CRS or no such column, or a polygon is none, has no
            label or lies outside the scene.
    """
    place = files.shown(path)
    try:
        meta, _, geometry, values = pyogrio.raw.read(files.absolute(path))
    except (DataSourceError, DataLayerError) as error:
        raise DataError("--labels", f"must be a file of polygons ({place})", error, "Correct it.") from None
    known = [str(name) for name in meta["fields"]]
    if column not in known:
        remedy = f"Give --column: {', '.join(known) or 'the file has none'}."
        raise DataError("--column", f"must be a column of {place}", column, remedy)
    if not meta["crs"]:
        need = "must have a coordinate reference system"
        raise DataError(place, need, "none", "Set it: ogr2ogr -a_srs EPSG:CODE.")
    shapes_N = shapely.from_wkb(geometry)
    target = CRS.from_wkt(scene.crs)
    shapes_N = reprojected(shapes_N, CRS.from_user_input(meta["crs"]), target)
    labels = values[known.index(column)]
    right = scene.transform.c + scene.width * scene.transform.a
    bottom = scene.transform.f - scene.height * scene.transform.a
    extent = shapely.box(scene.transform.c, bottom, right, scene.transform.f)
    grouped: dict[str, list[Any]] = {}
    for n, (shape, label) in enumerate(zip(shapes_N, labels, strict=True), start=1):
        thing = f"{place}: feature {n}"
        if shape is None or shape.geom_type not in ("Polygon", "MultiPolygon"):
            got = "nothing" if shape is None else shape.geom_type
            raise DataError(thing, "must be a polygon", got, "Remove it, or buffer it first.")
        if label is None or not str(label).strip():
            raise DataError(thing, f"must have a label in the column {column}", "nothing", "Fill it in.")
        if not shape.intersects(extent):
            need, got = (
                f"must lie in the scene {scene.name}",
                f"bounds {tuple(round(x, 1) for x in shape.bounds)}",
            )
            raise DataError(thing, need, got, "Remove it, or correct the CRS of the file.")
        grouped.setdefault(str(label).strip(), []).append(shapely.make_valid(shape))
    if not grouped:
        raise DataError("--labels", f"must hold a polygon ({place})", "none", "Draw some.")
    return {label: shapely.get_parts(shapely.union_all(grouped[label])) for label in sorted(grouped)}


def label_shares(boxes_N: NDArray[Any], polygons_M: NDArray[Any]) -> NDArray[np.float64]:
    """Share of each box that disjoint polygons cover, (N,)."""
    box_index, polygon_index = shapely.STRtree(polygons_M).query(boxes_N, predicate="intersects")
    pieces = shapely.area(shapely.intersection(boxes_N[box_index], polygons_M[polygon_index]))
    return np.asarray(np.bincount(box_index, pieces, len(boxes_N)) / shapely.area(boxes_N))


def write_chip(dataset: Any, scene: Scene, path: Path, row: int, column: int, size: int) -> bool:
    """Write one chip with all bands; False, and nothing, where it has too little data.

    Raises:
        DataError: when the scene is damaged.
    """
    window = Window(column * size, row * size, size, size)
    try:
        if (dataset.dataset_mask(window=window) > 0).mean() < MIN_VALID:
            return False
        values_CHW = dataset.read(window=window)
    except rasterio.errors.RasterioError as error:
        raise unreadable(scene.address, error) from None
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=size,
        width=size,
        count=dataset.count,
        dtype=values_CHW.dtype,
        crs=dataset.crs,
        transform=scene.transform @ Affine.translation(window.col_off, window.row_off),
        nodata=dataset.nodata,
        compress="deflate",
    ) as chip:
        chip.write(values_CHW)
        chip.colorinterp = dataset.colorinterp
        for number, description in enumerate(dataset.descriptions, start=1):
            if description:
                chip.set_band_description(number, description)
    return True


def training_command(out: str, size: int) -> str:
    """The command that trains on the chips."""
    options: Sequence[str] = (
        "--data.source table",
        f"--data.root {out}",
        f"--data.csv {TABLE}",
        f"--data.images {FOLDER}",
        "--data.extension .tif",
        "--data.table.group group",
        f"--data.image-size {size}",
    )
    return " ".join(("canopy pipeline", *options))
