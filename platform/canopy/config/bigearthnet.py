"""BigEarthNet: which version, labels and patches, and the bands of Sentinel-2 as it names them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from canopy.config.bands import BandConfig
from canopy.config.section import Section
from canopy.errors import ConfigError

SENTINEL2 = {
    "coastal": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "rededge1": "B05",
    "rededge2": "B06",
    "rededge3": "B07",
    "nir": "B08",
    "nir_narrow": "B8A",
    "water_vapor": "B09",
    "swir1": "B11",
    "swir2": "B12",
}
"""The twelve bands of surface reflectance (level 2A), by wavelength; their patches have 120 (10 m), 60 (20 m)
or 20 (60 m) pixels a side."""
SENTINEL1 = ("VV", "VH")
"""Polarizations of Sentinel-1, backscatter in decibels; columns of ``data.bands`` under this source."""
Reason = Literal["snow", "clouds"]


class BigEarthNetConfig(Section):
    """BigEarthNet as it is distributed (``data.source: bigearthnet``)."""

    version: Literal[1, 2] = 2
    """Version of the archive. 1: a folder per patch in ``data.images``, with a JSON of its labels. 2 (reBEN):
    a table of metadata (``data.csv``), and patch folders in tile folders."""
    nomenclature: Literal[19, 43] = 19
    """Number of labels: 43 are those of CORINE Land Cover, in version 1 only; 19 summarize 32 of them.
    Patches with none of the 19 are left out."""
    official_splits: bool = True
    """Whether patches keep their official split. Version 1: the lists train.csv, val.csv and test.csv;
    patches in no list are left out. Version 2: the column ``split``. False: ``data.val_fraction`` and so
    on."""
    lists: str = ""
    """Folder of version 1's lists (splits, snow, clouds), relative to the root; empty: the root."""
    more_metadata: str | None = None
    """Second table of version 2, relative to the root, such as
    ``metadata_for_patches_with_snow_cloud_or_shadow.parquet``; None: only ``data.csv``."""
    leave_out: tuple[Reason, ...] = ()
    """Patches that are left out: ``snow`` with seasonal snow, ``clouds`` with clouds or their shadows.
    Version 1: by patches_with_seasonal_snow.csv and patches_with_cloud_and_shadow.csv; version 2: by
    columns."""
    sentinel1: str | None = None
    """Folder of the Sentinel-1 patches, relative to the root, for bands with the columns ``VV`` and ``VH``;
    None: none. Version 1 takes the names of the pairs from the split lists."""


def sentinel2_bands() -> tuple[BandConfig, ...]:
    """The twelve bands of a BigEarthNet patch, each in its own file in the patch's folder."""
    return tuple(BandConfig(name=name, file=f"{{id}}/{{id}}_{file}.tif") for name, file in SENTINEL2.items())


def check_bigearthnet(config: BigEarthNetConfig, source: str, bands: Sequence[BandConfig]) -> None:
    """Check BigEarthNet's options against the source and the bands.

    Raises:
        ConfigError: when they are not read, do not fit each other, or there are no bands.
    """
    if source != "bigearthnet":
        if config != BigEarthNetConfig():
            need = f"must not be set under data.source {source}, which does not read it"
            raise ConfigError("data.bigearthnet", need, "other values", "Set data.source to bigearthnet.")
        return
    if not bands:
        remedy = "Take --preset bigearthnet, or name the bands in a config file."
        raise ConfigError("data.bands", "must be set for BigEarthNet, which has no RGB files", "none", remedy)
    if config.version == 2 and config.nomenclature == 43:
        need = "must be 19 for version 2, which has no other labels"
        raise ConfigError("data.bigearthnet.nomenclature", need, 43, "Set it to 19, or take version 1.")
    if config.version == 1 and config.more_metadata is not None:
        need = "must not be set for version 1, which has no such table"
        raise ConfigError("data.bigearthnet.more_metadata", need, config.more_metadata, "Drop it.")
    if config.version == 2 and config.lists:
        need = "must not be set for version 2, whose table has the splits"
        raise ConfigError("data.bigearthnet.lists", need, config.lists, "Drop it.")
    columns = [band.column for band in bands if band.column is not None]
    strange = [name for name in columns if name not in SENTINEL1]
    if strange:
        need = f"must be {' or '.join(SENTINEL1)} under data.source bigearthnet"
        raise ConfigError("The columns of data.bands", need, strange[0], "Correct it.")
    if columns and config.sentinel1 is None:
        need = f"must name the folder of the Sentinel-1 patches for the column {columns[0]}"
        raise ConfigError("data.bigearthnet.sentinel1", need, None, "Set it, or drop the band.")
    if columns and config.version == 1 and not config.official_splits:
        need = "must be true with Sentinel-1 in version 1: the split lists name the pairs"
        raise ConfigError("data.bigearthnet.official_splits", need, False, "Set it, or drop the bands.")
