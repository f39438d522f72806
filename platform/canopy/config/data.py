"""The data: where labelled images come from, how they are split."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from canopy.config.section import PLACE, Fraction, Section


class GenerateConfig(Section):
    """The built-in generator of Amazon-like chips (used when ``data.source`` is ``generated``)."""

    rows: int = Field(default=6000, ge=64)
    """Number of chips."""
    size: int = Field(default=64, ge=32, le=512)
    """Height and width of a chip in pixels."""
    seed: int = Field(default=0, ge=0)
    """Everything drawn follows from it."""
    min_rate: float = Field(default=0.0, ge=0, le=0.2)
    """Labels rarer than this share of the chips are raised to it; 0 keeps Planet's own rates."""
    miss_rate: float = Field(default=0.04, ge=0, le=0.5)
    """Chance that a label that is there is not written down; for the weather, that another one is."""
    spurious_rate: float = Field(default=0.002, ge=0, le=0.05)
    """Chance that a label that is not there is written down, for a label of average frequency."""
    cmyk_fraction: Fraction = 0.1
    """Share of the chips written as 4-component (Adobe) CMYK JPEGs, as real exports contain them."""


class TableConfig(Section):
    """What the columns of the label table are called when ``data.source`` is ``table``."""

    id: str = "image_name"
    """Unique name of the image."""
    path: str | None = None
    """Its file: relative to ``data.images``, absolute, or a URI; None: the id with ``data.extension``."""
    labels: str = "tags"
    """The names of the image's labels (in Parquet also a list column)."""
    separator: str = " "
    """Between names in a cell; empty where a cell is one name."""
    one_hot: tuple[str, ...] = ()
    """Columns of zeros and ones, one per label, instead of ``labels``; ``*``: all columns not named here."""
    split: str | None = None
    """Own splits: train, val, test, or empty where the row may be dealt out."""
    group: str | None = None
    """Rows with one value stay on one side of every split (a scene, a flight)."""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """Between the cells of a CSV."""


Band = Annotated[int, Field(ge=1, le=64)]


class SensorConfig(Section):
    """How 8-bit red, green and blue come out of files of many bands or of 16 bits; others are as they are."""

    bands: tuple[Band, Band, Band] | None = None
    """TIFF: which bands are red, green and blue, counted from 1. None: the first three where the file says
    it is RGB or has three, 3 2 1 where it has more (satellites store blue first), else grey."""
    black: int = Field(default=0, ge=0, le=65534)
    """Of 16 bits: this value, and all below, become 0."""
    white: int | None = Field(default=None, ge=1, le=65535)
    """Of 16 bits: this value, and all above, become 255. None: 65535, so that 12 bits come out black."""

    @model_validator(mode="after")
    def _white_is_above_black(self) -> Self:
        if self.white is not None and self.white <= self.black:
            raise ValueError(
                f"data.sensor.white must be above data.sensor.black. Got: {self.white} and {self.black}. "
                "Raise white or lower black."
            )
        return self


class DataConfig(Section):
    """The labelled images and how they are split."""

    source: Literal["generated", "kaggle", "table", "folders", "ucmerced"] = "generated"
    """``generated``: the built-in chips; ``kaggle``: a CSV of names and tags beside a folder of images;
    ``table``: any CSV or Parquet table; ``folders``: a folder per label set; ``ucmerced``: UC Merced."""
    root: str | None = Field(default=None, json_schema_extra=PLACE)
    """Directory or URI of the images; for generated chips, where to keep them (default: in the run)."""
    csv: str = "train_v2.csv"
    """The label table, relative to the root: columns ``image_name`` and ``tags`` (separated by spaces)."""
    images: str = "train-jpg"
    """Folder of the images, relative to the root."""
    extension: str = ".jpg"
    """Appended to ``image_name``."""
    image_size: int = Field(default=64, ge=8, le=1024)
    """Images are decoded to this height and width (resized when they differ)."""
    sensor: SensorConfig = SensorConfig()
    val_fraction: Fraction = 0.15
    """Share of the rows that serves selection: sweep, early stopping, checkpoints."""
    test_fraction: Fraction = 0.2
    """Share of the rows that is read once, at the end."""
    table: TableConfig = TableConfig()
    labels: tuple[str, ...] = ()
    """All label names in their order, any other refused; empty: those that occur, alphabetically."""
    max_bad_fraction: Fraction = 0.0
    """Unreadable images up to this share are named and skipped; more of them stop the run. It bounds those
    that prepare finds, and again those that turn bad later, in each training."""
    max_cache_gb: float = Field(default=16, ge=0, json_schema_extra=PLACE)
    """Decoded images are kept in the run directory, for all processes to map, when together they take at
    most so many gigabytes (of 10^9 bytes); more, or with 0 any, are decoded anew whenever they are wanted."""
    limit: int | None = Field(default=None, ge=64)
    """Use only this many rows (drawn by seed), for a quick look at a large set."""
    seed: int = Field(default=0, ge=0)
    """Of the splits and of ``limit``."""
    generate: GenerateConfig = GenerateConfig()

    @model_validator(mode="after")
    def _parts_leave_training_rows(self) -> Self:
        if not self.val_fraction or not self.test_fraction or self.val_fraction + self.test_fraction > 0.8:
            raise ValueError(
                "data.val_fraction and data.test_fraction must each be above 0 and together at most 0.8. "
                f"Got: {self.val_fraction} and {self.test_fraction}. Lower them."
            )
        return self
