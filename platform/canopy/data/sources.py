r"""Data sets as people have them: Kaggle, label table, class folders, UC Merced, generated; a function each.

A source names images and their labels; it opens no image. To bring another form, either write a table
(``data.source: table`` reads any CSV or Parquet), or add a function here that returns an
:class:`~canopy.data.label_table.Entry` per image, its name in ``DataConfig.source`` and a ``case`` in
:func:`list_images`. For example, a set with one JSON file next to each image::

    def _sidecars(config: DataConfig, directory: str) -> list[Entry]:
        entries = []
        for file in files.list_files(directory):
            name, dot, extension = file.rpartition(".")
            if dot + extension == config.extension:
                labels = files.read_json(files.join(directory, f"{name}.json"))["labels"]
                entries.append(Entry(id=name, tags=tuple(labels), file=file))
        return entries
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TypeVar, assert_never

import numpy as np

from canopy.bands import BandLayout
from canopy.config import SHARD_SOURCES, DataConfig, TableConfig, derive
from canopy.data import shards
from canopy.data.bigearthnet import bigearthnet_patches
from canopy.data.label_table import Entry, read_entries
from canopy.data.listing import MB, Listing, SourceLocation, is_hidden, join_with_files
from canopy.errors import DataError
from canopy.storage import files

KAGGLE = TableConfig(id="image_name", labels="tags", separator=" ")
UC_MERCED = TableConfig(id="IMAGE\\LABEL", one_hot=("*",), delimiter="\t")
SPELLINGS = ((".jpg", ".jpeg"), (".tif", ".tiff"))
"""Extensions of one kind of file."""
EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".jp2", ".avif")
"""Extensions of files that count as images."""
BETWEEN_LABELS = "+"
"""Joins labels in the name of a folder (``forest+river``): spaces and commas occur within names."""
READS_TABLE_OPTIONS = ("kaggle", "table")
"""Sources that read ``data.table``."""

Row = TypeVar("Row")


def list_images(config: DataConfig, root: str) -> Listing:
    """List the images of the configured source.

    Args:
        config: the data section.
        root: directory or URI that holds the images.

    Raises:
        DataError: when the root, a table or a column is missing, or no image is left.
        InputError: when a directory may not be read.
        StorageError: when an object store refuses.
    """
    _refuse_unread_options(config)
    if not files.is_dir(root):
        raise DataError("data.root", "must be a directory that exists", root, "Give --data.root DIR.")
    root = files.absolute(root)  # other processes read what is listed here
    if config.source == "generated" and config.generate.near_infrared:
        images, extension = config.generate.layout
        config = derive(config, images=images, extension=extension)
    table, directory = files.join(root, config.csv), files.join(root, config.images)
    if config.source in SHARD_SOURCES:
        table, directory = files.join(root, shards.TABLE), files.join(root, shards.IMAGES)
    elif not files.is_dir(directory):
        remedy = "Put the images there, or set --data.images to the folder's name."
        raise DataError("data.images", "must be a folder in data.root", directory, remedy)
    names: tuple[str, ...] = ()
    strays: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    match config.source:
        case "generated":  # written in Kaggle's layout
            entries, _ = read_entries(table, KAGGLE, config.extension)
        case "kaggle" | "table":
            columns = tuple(dict.fromkeys(band.column for band in config.bands if band.column is not None))
            entries, names = read_entries(table, config.table, config.extension, config.labels, columns)
        case "folders":
            entries, strays = _folders(config, directory)
        case "ucmerced":
            entries, names = _uc_merced(config, table)
        case "bigearthnet":
            entries, names, strays, notes = bigearthnet_patches(config, root, directory)
        case "webdataset" | "huggingface":  # unpacked into the root
            entries, strays = shards.read_samples(root, config.labels or ())
        case _:
            assert_never(config.source)
    drawn = subsample([*entries, *strays], config.limit, config.seed)
    chosen = [one for one in drawn if isinstance(one, Entry)]
    place = SourceLocation(
        source=directory if is_in_folders(config) else table,
        directory=directory,
        names=config.labels or names,
        max_file_bytes=int(config.max_image_mb * MB),
        timed=config.source not in ("generated", *SHARD_SOURCES),
        layout=BandLayout.of(config),
    )
    listing = join_with_files(chosen, place, {one: strays[one] for one in drawn if isinstance(one, str)})
    return replace(listing, notes=notes)


def is_in_folders(config: DataConfig) -> bool:
    """Whether the names of the images come from folders, and not from a table."""
    return config.source == "folders" or (config.source == "bigearthnet" and config.bigearthnet.version == 1)


def _refuse_unread_options(config: DataConfig) -> None:
    """Refuse options of the table under a source that does not read them.

    Raises:
        DataError: naming the first one.
    """
    if config.source in READS_TABLE_OPTIONS:
        return
    for name, value in config.table:
        if value != getattr(TableConfig(), name):
            raise DataError(
                f"data.table.{name}",
                f"must not be set under data.source {config.source}, which does not read it",
                repr(value),
                "Remove it, or set data.source to table.",
            )


def _folders(config: DataConfig, directory: str) -> tuple[list[Entry], dict[str, str]]:
    """One folder per label set: ``forest+river/anything/NAME.jpg`` has the labels forest and river.

    Returns:
        The entries, and a reason by file for images that are not among them.
    """
    entries, strays = [], {}
    wanted = same_extensions(config.extension)
    for file in files.list_files(directory, recursive=True):
        folder, slash, _ = file.partition("/")
        if is_hidden(file):
            continue
        extension = PurePosixPath(file).suffix
        if extension.lower() not in wanted:
            if extension.lower() in EXTENSIONS:
                strays[file] = f"it is not a {config.extension} file (data.extension)"
            continue
        if not slash:
            remedy = f"Move it into a folder, LABEL or LABEL{BETWEEN_LABELS}LABEL."
            raise DataError(
                f"The image {file}", "must lie in a folder named by its labels", directory, remedy
            )
        tags = tuple(dict.fromkeys(part.strip() for part in folder.split(BETWEEN_LABELS) if part.strip()))
        entries.append(Entry(file[: len(file) - len(extension)], tags, file, where=file))
    if not files.is_uri(directory):  # an object store has no empty folders
        full = {entry.file.partition("/")[0] for entry in entries}
        for folder in sorted(path.name for path in Path(directory).iterdir() if path.is_dir()):
            if entries and folder not in full and not is_hidden(folder):
                need = f"must hold a {config.extension} image"
                raise DataError(f"The folder {folder}", need, "none", "Add images, or remove the folder.")
    if not entries:
        need = f"must hold folders with {config.extension} files"
        raise DataError(directory, need, "none", "Correct data.images or data.extension.")
    return entries, strays


def same_extensions(extension: str) -> set[str]:
    """All spellings of an image file's extension, in lower case."""
    return next((set(kind) for kind in SPELLINGS if extension.lower() in kind), {extension.lower()})


def _uc_merced(config: DataConfig, table: str) -> tuple[list[Entry], tuple[str, ...]]:
    """UC Merced Land Use with the 17 labels of Chaudhuri et al. (IEEE TGRS 56(2), 2018).

    The table (LandUse_Multilabeled.txt) has a row per image and a column per label, between tabs; the
    image ``river07`` lies at ``<images>/river/river07.tif``.
    """
    entries, names = read_entries(table, UC_MERCED, config.extension)
    return [e._replace(file=f"{e.id.rstrip('0123456789')}/{e.file}") for e in entries], names


def subsample(entries: list[Row], limit: int | None, seed: int) -> list[Row]:
    """At most ``limit`` entries, drawn at random, in their order."""
    if limit is None or limit >= len(entries):
        return entries
    chosen = np.random.default_rng([seed, 0x11317]).choice(len(entries), limit, replace=False)
    return [entries[n] for n in np.sort(chosen).tolist()]
