"""The images of a batch job: those under a directory, or those that a table names; sorted by id."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from canopy.data.catalogue import refuse_duplicates
from canopy.data.listing import is_hidden
from canopy.data.loading.uri_list import UriList
from canopy.data.sources import EXTENSIONS
from canopy.errors import DataError
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


def list_images(address: str) -> ImageList:
    """The images of a directory, searched recursively, or of a Parquet table.

    An image's id is its path in the directory. A table has a column ``uri`` (absolute, or relative to the
    table) and may have a column ``id``; without one, the address as it stands in the table is the id.

    Raises:
        DataError: when there are no images, an id is repeated, or a table lacks its column.
        StorageError: when the object store refuses.
    """
    if files.is_dir(address):
        return _in_directory(address)
    if files.suffix(address) == TABLE and files.exists(address):
        return _in_table(address)
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


def _in_table(path: str) -> ImageList:
    table = files.read_table(path, remedy="Save it as Parquet.")
    for name in ("uri", "id"):
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
    names = [ids[n] for n in order]
    return ImageList(UriList(names), _digest(zip(names, places, strict=True)), uris=UriList(places))


def _resolved(table: str, uri: str) -> str:
    if files.is_uri(uri) or uri.startswith("/"):
        return uri
    return files.absolute(files.join(files.parent(table)[0] or ".", uri))


def _digest(rows: Iterable[Sequence[object]]) -> str:
    total = hashlib.sha256()
    for row in rows:
        total.update(repr(tuple(row)).encode("utf-8", "surrogatepass"))
    return total.hexdigest()
