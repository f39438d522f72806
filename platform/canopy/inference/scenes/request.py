"""The options of ``predict --scene``, and which of them it refuses before anything is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from canopy.errors import ConfigError, refuse_credentials
from canopy.inference.job import ModelChoice
from canopy.inference.predictions_table import check_output
from canopy.inference.scenes.formats import FORMATS, Format, require_packages
from canopy.runtime.cluster import require_shared_path
from canopy.storage import files


@dataclass(frozen=True)
class SceneRequest(ModelChoice):
    """What to map.

    Args:
        model: directory or URI of a finished run.
        scene: a raster file, a folder of them, or a STAC item.
        out: directory or URI of the maps.
        overlap: share of a window's side that its neighbor covers too, 0 to 0.9.
        resolution: metres per pixel of the chips that the model was trained on; None: as the run knows.
        max_resampling: largest factor between that and the scene's resolution, 1 or more.
        formats: formats of cells and areas.
        crs: ``scene`` or an authority's code, such as ``EPSG:4326``.
        block_windows: windows along the side of a block; None: by the size of a chip.
        asset: asset of a STAC item; None: its only raster.
        bands: number in the scenes of each band of the model, such as ``red=3``; empty: as in the chips'
            files, or by the scene's descriptions.
        mosaic: whether the maps of all scenes become one mosaic too.
    """

    model: str
    scene: str
    out: str
    overlap: float = 0.5
    resolution: float | None = None
    max_resampling: float = 2.0
    formats: Sequence[Format] = ("geoparquet",)
    crs: str = "scene"
    block_windows: int | None = None
    asset: str | None = None
    bands: Sequence[str] = ()
    mosaic: bool = False


def check_request(request: SceneRequest) -> None:
    """Refuse what is wrong in itself, before anything is opened.

    Raises:
        InputError: when an address holds credentials.
        ConfigError: when a number is out of range, a package is missing, or the output cannot be written.
    """
    for option in ("model", "scene", "out"):
        refuse_credentials(f"--{option}", getattr(request, option))
        require_shared_path(f"--{option}", getattr(request, option))
    if not 0 <= request.overlap <= 0.9:  # NaN fails too
        raise ConfigError("--overlap", "must be a share from 0 to 0.9", request.overlap, "Give 0.5.")
    if request.resolution is not None and not 1e-3 <= request.resolution <= 1e5:
        need = "must be metres per pixel, 0.001 to 100,000"
        raise ConfigError("--resolution", need, request.resolution, "Give that of the training chips.")
    if not 1 <= request.max_resampling <= 100:
        raise ConfigError(
            "--max-resampling", "must be a factor of 1 to 100", request.max_resampling, "Give 2."
        )
    if request.block_windows is not None and not 1 <= request.block_windows <= 4096:
        raise ConfigError("--block-windows", "must be 1 to 4096", request.block_windows, "Or leave it out.")
    if not request.formats or set(request.formats) - set(FORMATS):
        raise ConfigError(
            "--formats", f"must be of {', '.join(FORMATS)}", request.formats, "Give one of them."
        )
    require_packages("--scene")
    check_crs(request.crs)
    if files.suffix(request.out) in (".parquet", ".csv", ".tif"):
        raise ConfigError("--out", "must be a directory with --scene", request.out, "Give --out DIR.")
    check_output(request.out)


def check_crs(crs: str) -> None:
    """Refuse a CRS that is none.

    Raises:
        ConfigError: naming it.
    """
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if crs == "scene":
        return
    try:
        CRS.from_user_input(crs)
    except CRSError:
        need = "must be scene, or the code of a coordinate reference system"
        raise ConfigError("--crs", need, crs, "Give EPSG:4326.") from None
