"""Label tables, as CSV or Parquet, to one :class:`Entry` per image.

An empty label cell is an image with none of the labels.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

from canopy.config import TableConfig
from canopy.data.label_cells import cell_text, parse_labels, refuse_doubtful_names
from canopy.data.table_files import Cells, read_rows
from canopy.errors import DataError

logger = logging.getLogger(__name__)

SPLIT_NAMES = {
    "": "",
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
TRUTH = {"": False, "0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
LONG_FORM_SHARE = 0.1
"""If at least this share of ids has several rows, and no row has two labels, the table is in long form. A
smaller share is repeated by mistake."""


class Entry(NamedTuple):
    """One image as its source describes it.

    Attributes:
        id: unique name.
        tags: names of its labels.
        file: path relative to the folder of images, absolute path, or URI.
        split: train, val, test, or empty for none.
        group: name of its group, or empty for none.
        where: its place in the source: a line or row of a table, or a file.
        band_files: column and file of each band that has a column of its own.
    """

    id: str
    tags: tuple[str, ...]
    file: str
    split: str = ""
    group: str = ""
    where: str = ""
    band_files: tuple[tuple[str, str], ...] = ()


def read_entries(
    path: str,
    columns: TableConfig,
    extension: str,
    known: Container[str] = (),
    band_columns: Sequence[str] = (),
) -> tuple[list[Entry], tuple[str, ...]]:
    """Read a label table.

    Args:
        path: path or URI of the table.
        columns: names of its columns.
        extension: appended to the id where no column holds the path.
        known: label names that are right whatever characters they hold (``data.labels``).
        band_columns: columns that name the files of single bands.

    Returns:
        One entry per image in the table's order, and the label names where the columns fix them (one-hot).

    Raises:
        DataError: when the file or a column is missing, a row has no id or a wrong number of cells, a split
            or a one-hot value is unknown, label cells are ambiguous, or a CSV is not UTF-8.
    """
    wanted = [columns.id, *(() if columns.one_hot else (columns.labels,))]
    wanted += [name for name in (*columns.one_hot, columns.path, columns.split, columns.group) if name]
    wanted = [name for name in (*wanted, *band_columns) if name != "*"]
    options = dict.fromkeys(band_columns, "data.bands")
    options |= dict.fromkeys(columns.one_hot, "--data.table.one-hot COLUMN ...")
    for field in ("group", "split", "path", "labels", "id"):
        options[getattr(columns, field)] = f"--data.table.{field} COLUMN"
    entries: list[Entry] = []
    cells: Cells = {}
    for where, cells in read_rows(path, wanted, columns.delimiter, options):
        entry = _entry(f"{path}, {where}", cells, columns, extension, band_columns)
        entries.append(entry._replace(where=where))
    if not entries:
        raise DataError(path, "must hold at least one row", "none", "Check the file.")
    if columns.one_hot:
        return entries, tuple(one_hot_columns(cells, columns, band_columns))
    rows = [(entry.where, entry.tags) for entry in entries]
    refuse_doubtful_names(path, columns.labels, rows, columns.separator, known)
    return merge_long_form(path, entries), ()


def merge_long_form(path: str, entries: list[Entry]) -> list[Entry]:
    """One entry per image of a table in long form, which has one row per label; other tables unchanged.

    A table is in long form when no row has two labels and at least a tenth of the ids have several rows.

    Raises:
        DataError: when the rows of one id disagree in file, split or group.
    """
    rows = Counter(entry.id for entry in entries)
    repeated = sum(count > 1 for count in rows.values())
    if repeated < max(1, LONG_FORM_SHARE * len(rows)) or any(len(entry.tags) > 1 for entry in entries):
        return entries
    merged: dict[str, Entry] = {}
    for entry in entries:
        first = merged.setdefault(entry.id, entry)
        if (first.file, first.split, first.group) != (entry.file, entry.split, entry.group):
            raise DataError(
                f"{path}, {entry.where}",
                f"must give {entry.id} the same file, split and group as {first.where}",
                f"{entry.file} {entry.split} {entry.group}".strip(),
                "Correct one of the rows.",
            )
        merged[entry.id] = first._replace(tags=tuple(dict.fromkeys((*first.tags, *entry.tags))))
    logger.info("%s has one row per label: %d rows give %d images", path, len(entries), len(merged))
    return list(merged.values())


def _entry(
    where: str, cells: Cells, columns: TableConfig, extension: str, band_columns: Sequence[str]
) -> Entry:
    name = cell_text(cells[columns.id])
    if not name:
        raise DataError(where, "must name an image", "nothing", f"Fill in the column {columns.id}.")
    split = cell_text(cells[columns.split]).lower() if columns.split else ""
    if split not in SPLIT_NAMES:
        raise DataError(where, "must have train, val, test or nothing as its split", split, "Correct it.")
    for column in band_columns:
        if not cell_text(cells[column]):
            raise DataError(f"{where}, column {column}", "must name a file", "nothing", "Fill it in.")
    return Entry(
        id=name,
        tags=_one_hot(where, cells, columns, band_columns)
        if columns.one_hot
        else parse_labels(f"{where}, column {columns.labels}", cells[columns.labels], columns.separator),
        file=cell_text(cells[columns.path]) if columns.path else name + extension,
        split=SPLIT_NAMES[split],
        group=cell_text(cells[columns.group]) if columns.group else "",
        band_files=tuple((column, cell_text(cells[column])) for column in band_columns),
    )


def _one_hot(where: str, cells: Cells, columns: TableConfig, band_columns: Sequence[str]) -> tuple[str, ...]:
    tags = []
    for name in one_hot_columns(cells, columns, band_columns):
        value = cell_text(cells[name]).lower()
        if value not in TRUTH:
            raise DataError(
                f"{where}, column {name}",
                "must be 0 or 1",
                value,
                "Correct it, or list the columns of labels in data.table.one_hot.",
            )
        if TRUTH[value]:
            tags.append(name)
    return tuple(tags)


def one_hot_columns(
    header: Iterable[str], columns: TableConfig, band_columns: Sequence[str] = ()
) -> list[str]:
    """The label columns of a table; ``*`` selects every column without another use."""
    if "*" not in columns.one_hot:
        return list(columns.one_hot)
    others = {columns.id, columns.path, columns.split, columns.group, *band_columns}
    return [name for name in header if name not in others]
