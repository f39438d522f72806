"""The images of a batch job: those under a directory, or those that a table names; sorted by id.

For a model of ``data.bands`` an image is a chip of one or several files, as in training: a directory is
searched by the file patterns, a table has the columns that name files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from canopy.bands import BandLayout
from canopy.data.catalogue import refuse_duplicates
from canopy.data.listing import is_hidden
from canopy.data.loading.uri_list import UriList
from canopy.data.sources import EXTENSIONS
from canopy.errors import DataError
from canopy.inference.band_images import chips_by_pattern, has_patterns
from canopy.storage import files

OPTION = "--images"
TABLE = ".parquet"
REMEDY = f"Give {OPTION} DIR with {', '.join(EXTENSIONS)} files, or a table {TABLE} with a column uri."


@dataclass(frozen=True)
class ImageList:
    """Ids and addresses of N images, about a hundred bytes each, shared by the tasks of a node.

    Args:
        ids: distinct names, ascending.
        digest: 64 hex digits over ids, and sizes or addresses.
        directory: directory whose files ``ids`` are the paths of; unused where ``uris`` are given.
        uris: address of each image; None: its id in ``directory``.
    """

    ids: UriList
    digest: str
    directory: str = ""
    uris: UriList | None = field(default=None)

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, rows_n: NDArray[np.int64]) -> tuple[list[str], list[str]]:
        """Ids and addresses of the images in the given rows."""
        ids = self.ids.at(rows_n)
        if self.uris is not None:
            return ids, self.uris.at(rows_n)
        return ids, [files.join(self.directory, name) for name in ids]


def list_images(address: str, layout: BandLayout | None = None) -> ImageList:
    """The images of a directory, searched recursively, or of a Parquet table.

    An image's id is its path in the directory. A table has a column ``uri`` (absolute, or relative to the
    table) and may have a column ``id``; without one, the address as it stands in the table is the id.

    Args:
        address: the directory or the table.
        layout: the bands of the model's chips. Patterns of files are relative to the folder of a chip's
            ``uri``, its columns are columns of the table; None for RGB.

    Raises:
        DataError: when there are no images, an id is repeated, or a table lacks its column.
        StorageError: when the object store refuses.
    """
    if require_images(address):
        return _in_directory(address) if layout is None else _chips_in_directory(address, layout)
    return _in_table(address, layout)


def require_images(address: str) -> bool:
    """Refuse what is neither a directory nor a Parquet table; whether it is a directory.

    Raises:
        DataError: naming it.
        StorageError: when the object store refuses.
    """
    if files.is_dir(address):
        return True
    if files.suffix(address) == TABLE and files.exists(address):
        return False
    raise DataError(OPTION, "must be a directory, or a table of images", files.shown(address), REMEDY)


def _in_directory(directory: str) -> ImageList:
    sizes = {
        name: size
        for name, size in files.list_files(directory, recursive=True).items()
        if name.lower().endswith(EXTENSIONS) and not is_hidden(name)
    }
    if not sizes:
        raise DataError(OPTION, "must hold at least one image", files.shown(directory), REMEDY)
    names = sorted(sizes)
    digest = _digest((name, sizes[name]) for name in names)
    return ImageList(UriList(names), digest, files.absolute(directory))


def _chips_in_directory(directory: str, layout: BandLayout) -> ImageList:
    columns = [column for _, column in layout.files if column is not None]
    if columns:
        need = f"must be a table {TABLE} with the columns uri, {', '.join(columns)} for this model's chips"
        remedy = "Make such a table; addresses in it may be relative to it."
        raise DataError(OPTION, need, f"the directory {files.shown(directory)}", remedy)
    if not has_patterns(layout):
        return _in_directory(directory)
    names = files.list_files(directory, recursive=True)
    found = chips_by_pattern({name: size for name, size in names.items() if not is_hidden(name)}, layout)
    if not found.paths:
        patterns = ", ".join(pattern for pattern, _ in layout.files if pattern is not None)
        remedy = "Lay the files out as those of the training chips, or give a table with a column uri."
        need = f"must hold files like {patterns}"
        raise DataError(OPTION, need, f"none in {files.shown(directory)}", remedy)
    root = files.absolute(directory)
    places = UriList(files.join(root, path) for path in found.paths.values())
    return ImageList(UriList(found.paths), _digest(found.sizes.items()), uris=places)


def _in_table(path: str, layout: BandLayout | None) -> ImageList:
    table = files.read_table(path, remedy="Save it as Parquet.")
    columns = [column for _, column in layout.files if column is not None] if layout is not None else []
    for name in columns:
        if name not in table.column_names:
            got, need = ", ".join(table.column_names) or "no column", f"must have a column {name}, of a band"
            raise DataError(files.shown(path), need, got, "Add the column: it names the band's file.")
    for name in ("uri", "id", *columns):
        kind = table.schema.field(name).type if name in table.column_names else None
        if kind is not None and not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise DataError(f"{files.shown(path)}: {name}", "must be a column of text", str(kind), "Cast it.")
    if "uri" not in table.column_names:
        got = ", ".join(table.column_names) or "no column"
        raise DataError(files.shown(path), "must have a column uri", got, "Rename the column of addresses.")
    uris = table["uri"].to_pylist()
    ids = table["id"].to_pylist() if "id" in table.column_names else uris
    for row, pair in enumerate(zip(ids, uris, strict=True), start=1):
        if not all(pair):
            need = "must have an id and a uri in every row"
            raise DataError(files.shown(path), need, f"nothing in row {row}", "Fill it in, or drop the row.")
    if not ids:
        raise DataError(OPTION, "must hold at least one image", files.shown(path), REMEDY)
    refuse_duplicates(files.shown(path), ids)
    order = np.argsort(np.array(ids, object), kind="stable").tolist()
    places = [_resolved(path, uris[n]) for n in order]
    if layout is not None and columns:
        named = _named_files(path, table.select(columns))
        places = [layout.addresses(place, named[n]) for place, n in zip(places, order, strict=True)]
    names = [ids[n] for n in order]
    return ImageList(UriList(names), _digest(zip(names, places, strict=True)), uris=UriList(places))


def _named_files(path: str, table: pa.Table) -> list[dict[str, str]]:
    """Address by column, row by row.

    Raises:
        DataError: when a cell is empty.
    """
    rows = table.to_pylist()
    for number, row in enumerate(rows, start=1):
        for name, value in row.items():
            if not value:
                thing, need = f"{files.shown(path)}: {name}", "must name a file in every row"
                raise DataError(thing, need, f"nothing in row {number}", "Fill it in, or drop the row.")
    return [{name: _resolved(path, value) for name, value in row.items()} for row in rows]


def _resolved(table: str, uri: str) -> str:
    if files.is_uri(uri) or uri.startswith("/"):
        return uri
    return files.absolute(files.join(files.parent(table)[0] or ".", uri))


def _digest(rows: Iterable[Sequence[object]]) -> str:
    total = hashlib.sha256()
    for row in rows:
        total.update(repr(tuple(row)).encode("utf-8", "surrogatepass"))
    return total.hexdigest()
