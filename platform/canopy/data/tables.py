"""Label tables, as CSV or Parquet, to one :class:`Entry` per image.

A byte-order mark, Windows line ends, blank lines and spaces around cells are nothing special. An empty
label cell is an image with none of the labels: real sets hold such, and they teach too.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from canopy.config import TableConfig
from canopy.errors import DataError
from canopy.storage import files

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

END = "\x1f"
"""Put behind a CSV, as a row of its own: a cell that was never closed takes it in."""

Cells = Mapping[str, Any]


class Entry(NamedTuple):
    """What a source says of one image."""

    id: str
    tags: tuple[str, ...]
    file: str
    """Relative to the images' folder, absolute, or a URI."""
    split: str = ""
    group: str = ""
    where: str = ""
    """In its source: the line or row of a table, or the file."""


def read_entries(path: str, columns: TableConfig, extension: str) -> tuple[list[Entry], tuple[str, ...]]:
    """One entry per row of a table, in its order, and the label names if the columns fix them (one-hot).

    Raises:
        DataError: when the file or a column is missing, a row has no id, has too many or too few cells,
            a split or a one-hot value is unknown, or a CSV is not UTF-8.
    """
    wanted = [columns.id, *(() if columns.one_hot else (columns.labels,))]
    wanted += [name for name in (*columns.one_hot, columns.path, columns.split, columns.group) if name]
    wanted = [name for name in wanted if name != "*"]
    rows = (
        _read_parquet(path, wanted)
        if files.suffix(path) == ".parquet"
        else _read_csv(path, wanted, columns.delimiter)
    )
    entries: list[Entry] = []
    cells: Cells = {}
    for where, cells in rows:
        entries.append(_entry(f"{path}, {where}", cells, columns, extension)._replace(where=where))
    if not entries:
        raise DataError(path, "must hold at least one row", "none", "Check the file.")
    return entries, tuple(one_hot_columns(cells, columns))


def _entry(where: str, cells: Cells, columns: TableConfig, extension: str) -> Entry:
    name = _text(cells[columns.id])
    if not name:
        raise DataError(where, "must name an image", "nothing", f"Fill in the column {columns.id}.")
    split = _text(cells[columns.split]).lower() if columns.split else ""
    if split not in SPLIT_NAMES:
        raise DataError(where, "must have train, val, test or nothing as its split", split, "Correct it.")
    return Entry(
        id=name,
        tags=_one_hot(where, cells, columns)
        if columns.one_hot
        else _names(cells[columns.labels], columns.separator),
        file=_text(cells[columns.path]) if columns.path else name + extension,
        split=SPLIT_NAMES[split],
        group=_text(cells[columns.group]) if columns.group else "",
    )


def _names(cell: Any, separator: str) -> tuple[str, ...]:
    if isinstance(cell, list):
        parts = [_text(part) for part in cell]
    elif not separator:
        parts = [_text(cell)]
    else:  # runs of blanks separate once, hence None
        parts = [part.strip() for part in _text(cell).split(separator.strip(" ") or None)]
    return tuple(dict.fromkeys(part for part in parts if part))


def _one_hot(where: str, cells: Cells, columns: TableConfig) -> tuple[str, ...]:
    tags = []
    for name in one_hot_columns(cells, columns):
        value = _text(cells[name]).lower()
        if value not in TRUTH:
            raise DataError(
                f"{where}, column {name}", "must be 0 or 1", value, "Correct it, or data.table.one_hot."
            )
        if TRUTH[value]:
            tags.append(name)
    return tuple(tags)


def one_hot_columns(header: Iterable[str], columns: TableConfig) -> list[str]:
    """The label columns among ``header``; ``*`` stands for every column that nothing else claims."""
    if "*" not in columns.one_hot:
        return list(columns.one_hot)
    others = {columns.id, columns.path, columns.split, columns.group}
    return [name for name in header if name not in others]


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def _read_csv(path: str, wanted: Sequence[str], delimiter: str) -> Iterator[tuple[str, Cells]]:
    try:
        text = files.read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        _refuse_missing(path, error)
    except UnicodeDecodeError as error:
        remedy = "Save the table as UTF-8."
        raise DataError(path, "must be UTF-8 text", f"byte {error.start} is not", remedy) from None
    stream = io.StringIO(f"{text}\n{END}", newline="")
    reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=delimiter != " ")
    lines = _rows(path, reader)
    header = _without_empty_end([cell.strip() for cell in next(lines, [])], 0)
    _refuse_columns(path, wanted, header)
    for row in lines:
        if not any(cell.strip() for cell in row):
            continue
        cells = _without_empty_end(row, len(header))
        if len(cells) != len(header):
            remedy = f"Quote cells that hold {delimiter!r}, or set data.table.delimiter."
            got = f"{len(cells)}: {delimiter.join(cells)[:80]}"
            raise DataError(f"{path}, line {reader.line_num}", f"must have {len(header)} cells", got, remedy)
        yield f"line {reader.line_num}", dict(zip(header, cells, strict=True))


def _rows(path: str, reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """The rows of ``reader``; a cell that does not end is an error, told with the line of its row."""
    line, why = 1, ""
    try:
        for row in reader:
            if row == [END]:
                return
            if any(END in cell for cell in row):
                why = "a cell that goes on to the end of the file"
                break
            yield row
            line = reader.line_num + 1  # type: ignore[attr-defined]  # csv's reader has it
    except csv.Error as error:
        why = str(error)
    remedy = "Look for a quotation mark that is not closed, and double those within a cell."
    raise DataError(f"{path}, line {line}", "must be a row of a CSV", why, remedy)


def _without_empty_end(cells: list[str], keep: int) -> list[str]:
    """Less the empty cells behind number ``keep``: some programs end every line with delimiters."""
    end = len(cells)
    while end > keep and not cells[end - 1].strip():
        end -= 1
    return cells[:end]


def _read_parquet(path: str, wanted: Sequence[str]) -> Iterator[tuple[str, Cells]]:
    try:
        table = files.read_table(path)
    except OSError as error:
        _refuse_missing(path, error)
    _refuse_columns(path, wanted, table.column_names)
    for n, cells in enumerate(table.to_pylist()):
        yield f"row {n + 1}", cells


def _refuse_missing(path: str, error: OSError) -> NoReturn:
    there = not isinstance(error, FileNotFoundError | IsADirectoryError) and not files.is_dir(path)
    got = f"{path}: {error.strerror or error}" if there else path
    remedy = "Correct its permissions, or restore it." if there else "Put the label table there, or set it."
    need = "must be a file that can be read" if there else "must name a file in data.root"
    raise DataError("data.csv", need, got, remedy) from None


def _refuse_columns(path: str, wanted: Sequence[str], header: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in header]
    if missing:
        need = f"must have the columns {' and '.join(wanted)}"
        remedy = f"Add or rename {', '.join(missing)}, or say in data.table what they are called."
        raise DataError(path, need, ", ".join(header) or "none", remedy)
    repeated = [name for name in header if list(header).count(name) > 1]
    if repeated:
        raise DataError(path, "must have distinct columns", f"{repeated[0]} twice", "Rename one of them.")
