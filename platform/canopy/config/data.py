"""``DataConfig``: source, split, cache; its sections for tables, conversion to 8 bits and the generator."""

from __future__ import annotations

from math import floor
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from canopy.config.bands import EXACT_INTEGERS as EXACT_INTEGERS  # noqa: PLC0414 (public here)
from canopy.config.bands import BandConfig, Level, check_bands
from canopy.config.bigearthnet import BigEarthNetConfig, check_bigearthnet
from canopy.config.section import FINGERPRINTED_IF_SET, NOT_FINGERPRINTED, Fraction, Section
from canopy.config.shards import ShardsConfig, check_shards
from canopy.errors import ConfigError, refuse_credentials


def allowed_count(max_fraction: float, total: int) -> int:
    """The largest count that is at most ``max_fraction`` of ``total``: 29 for 0.29 of 100, not 28."""
    return floor(max_fraction * total + 1e-9)


GENERATED_LAYOUTS = {False: ("train-jpg", ".jpg"), True: ("train-tif", ".tif")}
"""Folder and extension of generated chips, by ``data.generate.near_infrared``."""


class GenerateConfig(Section):
    """The built-in generator of Amazon-like chips (``data.source: generated``)."""

    rows: int = Field(default=6000, ge=64)
    """Number of chips, 64 or more."""
    size: int = Field(default=64, ge=32, le=512)
    """Height and width of a chip, 32 to 512 pixels."""
    seed: int = Field(default=0, ge=0)
    """Seed of all chips and labels, 0 or more."""
    min_rate: float = Field(default=0.0, ge=0, le=0.2)
    """Lowest share of chips that a label occurs on, 0 to 0.2: rarer labels are raised to it; 0 keeps Planet's
    rates."""
    miss_rate: float = Field(default=0.04, ge=0, le=0.5)
    """Probability that a true label is missing (a weather label: replaced by another), 0 to 0.5."""
    spurious_rate: float = Field(default=0.002, ge=0, le=0.05)
    """Probability that a false label is added, for a label of average frequency, 0 to 0.05."""
    cmyk_fraction: Fraction = 0.1
    """Share of chips written as 4-component (Adobe) CMYK JPEGs, as in real exports, 0 to 1."""
    near_infrared: bool = Field(default=False, json_schema_extra=FINGERPRINTED_IF_SET)
    """Write TIFFs of four bands (blue, green, red, near infrared) and two more labels that only the near
    infrared shows; ``data.images`` and ``data.extension`` then have no effect."""

    @property
    def layout(self) -> tuple[str, str]:
        """Folder of the chips under the root, and the extension of their names."""
        return GENERATED_LAYOUTS[self.near_infrared]


class TableConfig(Section):
    """Columns and format of the label table (``data.source: table``)."""

    id: str = "image_name"
    """Column of the image's unique name."""
    path: str | None = None
    """Column of the image's file: relative to ``data.images``, absolute, or a URI; None: the id followed by
    ``data.extension``."""
    labels: str = "tags"
    """Column of the image's labels; in Parquet it may hold lists."""
    separator: str = " "
    """Text between two labels in a cell; empty: each cell is one label."""
    one_hot: tuple[str, ...] = ()
    """Columns of 0 and 1, one per label, instead of ``labels``; ``*``: all columns not named here."""
    split: str | None = None
    """Column of the split: train, val, test, or empty for rows to split at random; None: split all rows."""
    group: str | None = None
    """Column of the group (a scene, a flight): rows of one group stay in the same split; None: no groups."""
    delimiter: str = ","
    r"""Character between two cells of a CSV file; ``\t`` is a tab."""

    @field_validator("delimiter", mode="after")
    @classmethod
    def _delimiter_is_one_character(cls, given: str) -> str:
        delimiter = "\t" if given == r"\t" else given
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise ConfigError(
                "data.table.delimiter",
                "must be one character, not a quote or a line break",
                repr(given),
                r"Give one character, such as ; or \t for a tab.",
            )
        return delimiter


Band = Annotated[int, Field(ge=1, le=64)]


class SensorConfig(Section):
    """Conversion of images with many bands or more than 8 bits to 8-bit RGB."""

    bands: tuple[Band, Band, Band] | None = None
    """Bands to use as red, green and blue, counted from 1 (1 to 64). None: those that the file declares, the
    first three of three, 3 2 1 of a TIFF's four (satellites store blue first); other counts are refused."""
    black: Level = 0
    """Value that becomes 0, with all values below it, -1e+38 to 1e+38; for samples of more than 8 bits. A
    whole number within the range of the type where samples are integers; -25 for decibels as floats."""
    white: Level | None = None
    """Value that becomes 255, with all values above it, -1e+38 to 1e+38; 1 for reflectance as floats; else as
    for ``black``. None: the highest value of the file's depth (65535 of 16 bits); signed and float samples
    need a value."""

    @model_validator(mode="after")
    def _white_is_above_black(self) -> Self:
        if self.white is not None and self.white <= self.black:
            raise ConfigError(
                "data.sensor.white",
                "must be above data.sensor.black",
                f"{self.white} and {self.black}",
                "Raise white or lower black.",
            )
        return self


class BlockConfig(Section):
    """Spatial blocks: chips of one square on the ground stay in one split and one fold."""

    metres: float | None = Field(default=None, ge=1, le=10_000_000)
    """Side of a block in metres, 1 to 1e+07; a chip belongs to the block of its center. Every chip needs
    a georeference. None: no blocks."""
    crs: str | None = None
    """Coordinate reference system of the blocks, projected, such as ``EPSG:3035``; needed where the chips
    have several, or one in degrees. Distances are those of this system. None: that of the chips."""

    @model_validator(mode="after")
    def _crs_belongs_to_blocks(self) -> Self:
        if self.crs is not None and self.metres is None:
            need = "must not be set without data.blocks.metres"
            raise ConfigError("data.blocks.crs", need, self.crs, "Set data.blocks.metres, or drop it.")
        return self


class DataConfig(Section):
    """The images, their labels and the split."""

    source: Literal[
        "generated", "kaggle", "table", "folders", "ucmerced", "bigearthnet", "webdataset", "huggingface"
    ] = "generated"
    """Format of the data set. ``generated``: the built-in chips; ``kaggle``: a CSV of names and tags, and a
    folder of images; ``table``: any CSV or Parquet table (both read ``data.table``); ``folders``: one folder
    per label set; ``ucmerced``: UC Merced; ``bigearthnet``: BigEarthNet (reads ``data.bigearthnet``);
    ``webdataset``, ``huggingface``: shards in the root, tar or Parquet files (both read ``data.shards``)."""
    root: str | None = Field(default=None, json_schema_extra=NOT_FINGERPRINTED)
    """Directory or URI of the images; for generated chips, where to write them (default: in the run)."""
    csv: str = "train_v2.csv"
    """Path of the label table (CSV, compressed CSV, Parquet), relative to the root."""
    images: str = "train-jpg"
    """Folder of the images, relative to the root."""
    extension: str = ".jpg"
    """File extension appended to the image's name."""
    image_size: int = Field(default=64, ge=8, le=1024)
    """Height and width of decoded images, 8 to 1024 pixels; images of other sizes are resized."""
    sensor: SensorConfig = SensorConfig()
    """Conversion of images with many bands or 16 bits to RGB; not with ``data.bands``."""
    bands: tuple[BandConfig, ...] = Field(default=(), json_schema_extra=FINGERPRINTED_IF_SET)
    """The bands of a chip, in order, each with its source, in a config file (``--config``); empty: 8-bit RGB
    as ``sensor`` says."""
    dtype: Literal["uint8", "uint16"] = Field(default="uint16", json_schema_extra=FINGERPRINTED_IF_SET)
    """Type of a decoded chip's levels with ``data.bands``; without them it is uint8."""
    max_nodata: Fraction = Field(default=0.5, json_schema_extra=FINGERPRINTED_IF_SET)
    """Largest share of a chip's pixels without a value in some band, 0 to 1; a chip with more is bad. Fewer
    are filled with the mean of the band's other pixels in the chip."""
    display: tuple[str, str, str] | None = Field(default=None, json_schema_extra=FINGERPRINTED_IF_SET)
    """Names of the bands that pictures for people show as red, green and blue; None: those of these names,
    else the first three, or the first in gray."""
    val_fraction: Fraction = 0.15
    """Share of rows for selection (sweep, early stopping, checkpoints), above 0 and below 1."""
    test_fraction: Fraction = 0.2
    """Share of rows for the final test, above 0 and below 1; with ``val_fraction`` at most 0.8."""
    blocks: BlockConfig = Field(default=BlockConfig(), json_schema_extra=FINGERPRINTED_IF_SET)
    """Spatial blocks that stay in one split."""
    table: TableConfig = TableConfig()
    """Columns and format of the label table."""
    labels: tuple[str, ...] = ()
    """All label names in order, any other is refused; empty: the labels that occur, alphabetically."""
    max_bad_fraction: Fraction = 0.0
    """Share of unreadable images that are skipped and named, 0 to 1; more of them stop the run. Applies in
    prepare, and again in each training to images that have become unreadable since."""
    max_cache_gb: float = Field(default=16, ge=0, json_schema_extra=NOT_FINGERPRINTED)
    """Maximum size of the cache of decoded images in the run directory, in GB (10^9 bytes), 0 or more; larger
    data sets are decoded again in every epoch. 0: no cache."""
    max_image_mb: float = Field(default=400, ge=1, json_schema_extra=NOT_FINGERPRINTED)
    """Memory that decoding one image may take, and largest image file, in MB (10^6 bytes), 1 or more; images
    that need more count as unreadable."""
    limit: int | None = Field(default=None, ge=64)
    """Number of rows to draw at random from the data set, 64 or more; None: all."""
    seed: int = Field(default=0, ge=0)
    """Seed of the split and of ``limit``, 0 or more."""
    generate: GenerateConfig = GenerateConfig()
    """The built-in generator."""
    bigearthnet: BigEarthNetConfig = Field(
        default=BigEarthNetConfig(), json_schema_extra=FINGERPRINTED_IF_SET
    )
    """BigEarthNet: version, nomenclature, and which patches are used."""
    shards: ShardsConfig = Field(default=ShardsConfig(), json_schema_extra=FINGERPRINTED_IF_SET)
    """Shards of WebDataset and the Hugging Face hub: members or columns of a sample."""

    @model_validator(mode="after")
    def _bands_fit_each_other(self) -> Self:
        check_bands(self.bands, self.display)
        if self.bands and self.sensor != SensorConfig():
            need = "must not be set with data.bands, which says the same of each band"
            raise ConfigError("data.sensor", need, "both", "Drop one of them.")
        columns = [band.column for band in self.bands if band.column is not None]
        if columns and self.source not in ("table", "kaggle", "bigearthnet"):
            need = "must be read from a table (data.source: table)"
            raise ConfigError(
                f"The column {columns[0]} of data.bands", need, self.source, "Give file patterns."
            )
        return self

    @model_validator(mode="after")
    def _the_source_can_be_read(self) -> Self:
        check_bigearthnet(self.bigearthnet, self.source, self.bands)
        check_shards(self.shards, self.source, self.bands)
        return self

    @model_validator(mode="after")
    def _addresses_have_no_credentials(self) -> Self:
        for name, address in (("root", self.root), ("csv", self.csv), ("images", self.images)):
            if address is not None:
                refuse_credentials(f"data.{name}", address)
        return self

    @model_validator(mode="after")
    def _split_leaves_training_rows(self) -> Self:
        if not self.val_fraction or not self.test_fraction or self.val_fraction + self.test_fraction > 0.8:
            raise ConfigError(
                "data.val_fraction and data.test_fraction",
                "must each be above 0 and together at most 0.8",
                f"{self.val_fraction} and {self.test_fraction}",
                "Give for example 0.15 and 0.2.",
            )
        return self
