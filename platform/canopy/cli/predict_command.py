"""The sub-command ``predict``: a finished run applied to images, or to georeferenced scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Literal

import tyro

from canopy.cli.options import read_options
from canopy.errors import ConfigError
from canopy.runtime.logging import log_context
from canopy.storage import files

PREDICT = "Apply the ensemble of a finished run to images, or to scenes as maps"


@dataclass(frozen=True)
class PredictOptions:
    """Options of ``predict``."""

    model: str
    """Directory or URI of a finished run."""
    out: str
    """File to write, .parquet or .csv, or a directory of shards or of maps."""
    images: str | None = None
    """Directory or URI of images, laid out as the training chips where bands have files of their own, or a
    Parquet table of them with columns uri and (optional) id."""
    scene: str | None = None
    """Georeferenced scene to map: a raster file, a folder of them, or a STAC item; path or URI."""
    max_bad_fraction: float = 0.0
    """Images: share of unreadable ones that are named and left out, 0 to 1."""
    max_image_mb: float | None = None
    """Images: MB that decoding one may take, 1 or more; default: data.max_image_mb of the run."""
    member_probabilities: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Images: write each member's own probabilities too."""
    embeddings: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Images: write each member's features too. Parquet only."""
    autotune: bool = True
    """Images: in a job of 20,000 or more, timed steps choose memory format, threads and batch size."""
    tune_precision: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Images: they may choose bfloat16, if predictions of 256 of the images stay the same within noise."""
    overlap: float = 0.5
    """Scenes: share of a window's side that its neighbor covers too, 0 to 0.9; the rest is a cell's side."""
    resolution: float | None = None
    """Scenes: metres per pixel of the training chips, as the networks see them; default: as the run knows."""
    max_resampling: float = 2.0
    """Scenes: largest factor between that and the scene's own resolution, 1 to 100."""
    formats: tuple[Literal["geoparquet", "geojson", "gpkg"], ...] = ("geoparquet",)
    """Scenes: formats of cells and areas."""
    crs: str = "scene"
    """Scenes: CRS of GeoParquet and GeoPackage: scene, or a code such as EPSG:4326."""
    block_windows: int | None = None
    """Scenes: windows along the side of a block, the unit of work, 1 to 4096; default: by the chip's size."""
    asset: str | None = None
    """Scenes: asset of a STAC item; default: its only raster."""
    bands: tuple[str, ...] = ()
    """Scenes: number of each band of a model of data.bands in them, such as red=3 nir=4; default: as in the
    files of the training chips, or by the scene's band descriptions."""
    mosaic: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Scenes: write one mosaic of all maps too, in OUT/mosaic; the scenes must have one CRS."""
    members: tuple[str, ...] = ()
    """Variants to use, refitted; default: those of the run's ensemble."""
    max_members: int | None = None
    """Largest number of members; the best are used."""
    precision: Literal["float32", "bfloat16"] | None = None
    """Numeric precision of the networks; default: as each was trained."""
    gpus_per_actor: float | None = None
    """GPUs per process that holds the networks, such as 0.5; default: 1 if there are any."""
    cpus_per_actor: int = 1
    """Threads per process that holds the networks, on CPUs."""


IMAGES_ONLY = (
    *("max_bad_fraction", "max_image_mb", "member_probabilities", "embeddings"),
    *("autotune", "tune_precision"),
)
SCENES_ONLY = (
    *("overlap", "resolution", "max_resampling", "formats", "crs", "block_windows", "asset", "bands"),
    "mosaic",
)


def predict(argv: Sequence[str], prog: str) -> None:
    """Predict images or scenes with a finished run.

    Raises:
        ConfigError: unless exactly one of ``--images`` and ``--scene`` is given, with its own options.
        CanopyError: see :func:`canopy.inference.job.predict_images` and
            :func:`canopy.inference.scenes.job.predict_scenes`.
    """
    options = read_options(PredictOptions, argv, PREDICT, prog)
    unread = options_unread(options)
    from canopy.runtime.console import Console

    console = Console()
    values = {name: value for name, value in vars(options).items() if name not in unread}
    with log_context(run=files.shown(options.model)):
        if options.scene is None:
            from canopy.inference.job import PredictRequest, predict_images

            values.pop("scene")
            count = predict_images(PredictRequest(**values), console)
            console.say("predict", f"{count:,} images written to {options.out}")
        else:
            from canopy.inference.scenes.job import predict_scenes
            from canopy.inference.scenes.request import SceneRequest

            values.pop("images")
            count = predict_scenes(SceneRequest(**values), console)
            console.say("predict", f"{count:,} scene{'s' * (count > 1)} mapped in {options.out}")


def options_unread(options: PredictOptions) -> tuple[str, ...]:
    """Names of the options that belong to the other kind of input than the given one.

    Raises:
        ConfigError: unless exactly one of ``--images`` and ``--scene`` is given, with its own options.
    """
    if (options.images is None) == (options.scene is None):
        got = "neither" if options.scene is None else "both"
        raise ConfigError(
            "--images and --scene", "must be given one without the other", got, "Give one of them."
        )
    kind, unread = ("--images", SCENES_ONLY) if options.scene is None else ("--scene", IMAGES_ONLY)
    for field in fields(options):
        if field.name in unread and getattr(options, field.name) != field.default:
            option = f"--{field.name.replace('_', '-')}"
            got = str(getattr(options, field.name))
            raise ConfigError(option, f"must not be given with {kind}", got, "Leave it out.")
    return unread
