r"""Labelled image sets as people have them, each read by a function of its own into one :class:`Listing`.

A source names images and their labels. It opens no image: that is validation's work. To bring one's own,
either write a table (``data.source: table`` reads any CSV or Parquet), or add a function here that gives
an :class:`~canopy.data.tables.Entry` per image, a name for it in ``DataConfig.source`` and a ``case`` in
:func:`list_images`. For example, a set with one JSON file per image beside it::

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

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar, assert_never

import numpy as np

from canopy.config import DataConfig, TableConfig, fingerprint
from canopy.data.tables import Entry, read_entries
from canopy.errors import DataError, nearest
from canopy.labels import LabelSet
from canopy.storage import files
from canopy.storage.local_files import BROKEN

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

KAGGLE = TableConfig(id="image_name", labels="tags", separator=" ")
UC_MERCED = TableConfig(id="IMAGE\\LABEL", one_hot=("*",), delimiter="\t")
SPELLINGS = ((".jpg", ".jpeg"), (".tif", ".tiff"))
EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".jp2", ".avif")
"""Of files that are taken for images."""
BETWEEN_LABELS = "+"
"""Joins labels in the name of a folder (``forest+river``): spaces and commas occur within names."""


Row = TypeVar("Row")


@dataclass(frozen=True)
class Listing:
    """N labelled images that are there.

    Attributes:
        ids: unique names.
        uris: path or URI of each image file.
        tags: the labels of each image; some may have none.
        labels: the label set: as configured, or every label that occurs, alphabetically.
        identity: 64 hex digits over ids, labels and file sizes: the data set's identity, wherever it lies.
        arrangement: 64 hex digits over what is said besides: the order of the labels, splits, groups.
        bad: rows that cannot be used, by their id and why: an id that stands before, a label that is not in
            the set, no file. They are in no other field.
        splits: "train", "val", "test" or "" per image; None where the source has no splits of its own.
        groups: name of each image's group ("" for none); None where the source knows no groups.
    """

    ids: list[str]
    uris: list[str]
    tags: list[tuple[str, ...]]
    labels: LabelSet
    identity: str
    arrangement: str = ""
    bad: dict[str, str] = field(default_factory=dict)
    splits: list[str] | None = None
    groups: list[str] | None = None

    def __len__(self) -> int:
        return len(self.ids)


def list_images(config: DataConfig, root: str) -> Listing:
    """List what the configured source holds under ``root`` (a directory or URI).

    Raises:
        DataError: when the root, a table or a column is missing, or no image is left.
        InputError: when an object store refuses.
    """
    if not files.is_dir(root):
        raise DataError("data.root", "must be a directory that exists", root, "Give --data.root DIR.")
    root = files.absolute(root)  # what is listed here is read by other processes
    table, directory = files.join(root, config.csv), files.join(root, config.images)
    if not files.is_dir(directory):
        remedy = "Put the images there, or set --data.images to the folder's name."
        raise DataError("data.images", "must be a folder in data.root", directory, remedy)
    names: tuple[str, ...] = ()
    strays: dict[str, str] = {}
    match config.source:
        case "generated" | "kaggle":  # generated chips are written in Kaggle's layout
            entries, _ = read_entries(table, KAGGLE, config.extension)
        case "table":
            entries, names = read_entries(table, config.table, config.extension)
        case "folders":
            entries, strays = _folders(config, directory)
        case "ucmerced":
            entries, names = _uc_merced(config, table)
        case _:
            assert_never(config.source)
    source = directory if config.source == "folders" else table
    drawn = draw([*entries, *strays], config.limit, config.seed)
    chosen = [one for one in drawn if isinstance(one, Entry)]
    passed_over = {one: strays[one] for one in drawn if isinstance(one, str)}
    return locate(chosen, source, directory, config.labels or names, passed_over)


def _folders(config: DataConfig, directory: str) -> tuple[list[Entry], dict[str, str]]:
    """A folder per label set: ``forest+river/anything/NAME.jpg`` has the labels forest and river.

    Also given: why other images are not among the entries.
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
                strays[file] = f"it is no {config.extension} (data.extension)"
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


def is_hidden(file: str) -> bool:
    """Whether a file is some program's own (thumbnails, what macOS puts into archives), not a picture."""
    return any(part.startswith((".", "__MACOSX")) for part in file.split("/"))


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


def draw(entries: list[Row], limit: int | None, seed: int) -> list[Row]:
    """``limit`` of the entries at random, in their old order; all of them where there are no more."""
    if limit is None or limit >= len(entries):
        return entries
    chosen = np.random.default_rng([seed, 0x11317]).choice(len(entries), limit, replace=False)
    return [entries[n] for n in np.sort(chosen).tolist()]


def locate(
    entries: Sequence[Entry],
    source: str,
    directory: str,
    names: tuple[str, ...] = (),
    strays: Mapping[str, str] = MappingProxyType({}),
) -> Listing:
    """Join what a source says with the files that there are.

    Args:
        entries: of all images, in order.
        source: what to call it in an error.
        directory: where files lie whose paths are relative.
        names: the label set, in order; every label that occurs where it is empty.
        strays: why images are not among the entries, by file.

    Raises:
        DataError: when no image is left, or none has a label.
    """
    uris = [_uri(directory, entry.file) for entry in entries]
    sizes = _sizes(uris)
    bad = _unusable(entries, uris, sizes, directory, names)
    if len(bad) == len(entries):
        name, why = next(iter([*bad.values(), *strays.items()]))
        remedy = "Correct them, or data.images, data.extension and data.labels."
        raise DataError(f"{source}", "must name an image that can be used", f"{name}: {why}", remedy)
    here = [n for n in range(len(entries)) if n not in bad]
    kept = [entries[n] for n in here]
    if not any(entry.tags for entry in kept):
        raise DataError(source, "must give a label to some image", "none", "Check its label column.")
    identity = hashlib.sha256()
    for n, entry in zip(here, kept, strict=True):
        identity.update(json.dumps([entry.id, sorted(entry.tags), sizes[uris[n]]]).encode())
    labels = LabelSet(names) if names else LabelSet.of(entry.tags for entry in kept)
    return Listing(
        ids=[entry.id for entry in kept],
        uris=[uris[n] for n in here],
        tags=[entry.tags for entry in kept],
        labels=labels,
        identity=identity.hexdigest(),
        arrangement=fingerprint(labels.names, [(entry.split, entry.group) for entry in kept]),
        bad={**dict(bad.values()), **strays},
        splits=[entry.split for entry in kept] if any(entry.split for entry in kept) else None,
        groups=[entry.group for entry in kept] if any(entry.group for entry in kept) else None,
    )


def _unusable(
    entries: Sequence[Entry], uris: Sequence[str], sizes: Container[str], directory: str, names: Sequence[str]
) -> dict[int, tuple[str, str]]:
    """By row: what to call it, and why it cannot be used."""
    out: dict[int, tuple[str, str]] = {}
    first: dict[str, int] = {}
    there = ""
    for n, entry in enumerate(entries):
        strange = next((tag for tag in entry.tags if names and tag not in names), None)
        before = first.setdefault(entry.id, n)
        if before != n:
            other = entries[before].where or f"row {before + 1}"
            out[n] = (f"{entry.id} ({entry.where or f'row {n + 1}'})", f"{other} has its id")
        elif strange is not None:
            out[n] = (entry.id, f"{strange!r} is not in data.labels ({nearest(strange, names)[:-1]})")
        elif uris[n] not in sizes:
            hint = "" if there else _some_file(directory)
            there = there or hint
            holds = f" ({directory} holds {hint})" if hint else ""  # once is enough
            out[n] = (entry.id, f"there is no file {files.shown(uris[n])}{holds}")
    return out


def _some_file(directory: str) -> str:
    """The name of a file that is there, for comparison."""
    found = files.list_files(directory, recursive=True).items()
    return next((name for name, size in found if size != BROKEN and not is_hidden(name)), "no file")


def _uri(directory: str, file: str) -> str:
    if files.is_uri(file):
        return file
    if file.startswith("/"):
        return str(Path(file))
    return files.join(directory, *(part for part in file.split("/") if part != "."))  # find writes ./a.jpg


def _sizes(uris: Iterable[str]) -> dict[str, int]:
    """Bytes of each file that is there: one listing per folder, not a request per image."""
    out: dict[str, int] = {}
    for folder in dict.fromkeys(files.parent(uri)[0] for uri in uris):
        try:
            found = files.list_files(folder)
        except OSError:  # it is not there, or cannot be: a file for a folder, a name of too many letters
            continue
        out |= {files.join(folder, name): size for name, size in found.items() if size != BROKEN}
    return out
