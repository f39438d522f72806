"""Rows of label tables: CSV, compressed CSV, or Parquet.

A byte-order mark, Windows line ends, blank lines, and blanks around cells are accepted. A first column
without a name is the index that pandas writes; it is ignored.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import IO, Any, NoReturn, cast

from canopy.errors import DataError, StorageError
from canopy.storage import files

Cells = Mapping[str, Any]
"""One row: the cell of each column."""

END = "\x1f"
"""Sentinel row appended to a CSV; an unclosed quoted cell swallows it."""
MAX_TABLE_BYTES = 4 << 30
"""Limit of the size of a compressed table once it is unpacked."""
COMPRESSED: dict[bytes, Callable[[IO[bytes]], IO[bytes]]] = {
    b"\x1f\x8b": lambda stream: cast(IO[bytes], gzip.GzipFile(fileobj=stream)),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}
"""Openers of compressed files by their first bytes."""
ZIP, OLD_EXCEL, PARQUET = b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"PAR1"
EXCEL_SUFFIXES = (".xls", ".xlsx", ".xlsm", ".xlsb")
PANDAS_INDEX = "__index_level_0__"
"""Name that pandas gives to an index without one in Parquet."""
DELIMITERS = (",", ";", "\t", "|")


def read_rows(
    path: str, wanted: Sequence[str], delimiter: str, options: Mapping[str, str] = MappingProxyType({})
) -> Iterator[tuple[str, Cells]]:
    """The rows of a table in order, each with its place ("line 3", "row 2").

    Args:
        path: path or URI; ``.parquet`` is read as Parquet, all else as CSV.
        wanted: columns that must exist.
        delimiter: character between the cells of a CSV.
        options: the option that names each column, for the remedy where it is missing.

    Raises:
        DataError: when the file or a column is missing, or the file cannot be read as a CSV.
        InputError: when a ``.parquet`` file is not Parquet.
    """
    if files.suffix(path) == ".parquet":
        return _read_parquet(path, wanted, options)
    return _read_csv(path, wanted, delimiter, options)


def _read_csv(
    path: str, wanted: Sequence[str], delimiter: str, options: Mapping[str, str]
) -> Iterator[tuple[str, Cells]]:
    stream = io.StringIO(f"{_read_text(path)}\n{END}", newline="")
    # Geometries exceed the default of 131,072 characters. The limit is the module's own, for all readers.
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=delimiter != " ")
    lines = _rows(path, reader)
    header = _without_empty_end([cell.strip() for cell in next(lines, [])], 0)
    _refuse_columns(path, wanted, header, options, delimiter)
    for row in lines:
        if not any(cell.strip() for cell in row):
            continue
        cells = _without_empty_end(row, len(header))
        if len(cells) != len(header):
            remedy = f"Quote cells that hold {delimiter!r}, or set data.table.delimiter."
            if len(cells) < len(header):
                remedy = f"Complete the line (data.table.delimiter is {delimiter!r})."
            got = f"{len(cells)}: {delimiter.join(cells)[:80]}"
            raise DataError(f"{path}, line {reader.line_num}", f"must have {len(header)} cells", got, remedy)
        named = dict(zip(header, cells, strict=True))
        named.pop("", None)  # pandas' index
        yield f"line {reader.line_num}", named


def _read_text(path: str) -> str:
    """The text of a CSV file, unpacked."""
    try:
        data = files.read_bytes(path)
    except StorageError:
        raise
    except OSError as error:
        _refuse_missing(path, error)
    opener = next((opener for magic, opener in COMPRESSED.items() if data.startswith(magic)), None)
    if opener is not None:
        data = _unpack(path, data, opener)
    _refuse_other_formats(path, data)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        remedy = "Save the table as UTF-8."
        raise DataError(path, "must be UTF-8 text", f"byte {error.start} is not", remedy) from None


def _refuse_other_formats(path: str, data: bytes) -> None:
    """Refuse a Parquet file under another name, a zip archive, and an Excel workbook."""
    if data.startswith(PARQUET):
        need = "must be a CSV file, as its name does not end in .parquet"
        raise DataError(path, need, "a Parquet file", "Name it .parquet and set data.csv to that name.")
    if not data.startswith((ZIP, OLD_EXCEL)):
        return
    what, remedy = "a zip archive or an Excel workbook", "Unpack it, or export it as CSV (UTF-8),"
    if data.startswith(OLD_EXCEL) or files.suffix(path) in EXCEL_SUFFIXES:
        what, remedy = "an Excel workbook", "Export it as CSV (UTF-8)"
    elif files.suffix(path) == ".zip":
        what, remedy = "a zip archive", "Unpack it"
    raise DataError(path, "must be a CSV or Parquet file", what, f"{remedy} and set data.csv to that file.")


def _unpack(path: str, data: bytes, opener: Callable[[IO[bytes]], IO[bytes]]) -> bytes:
    try:
        with opener(io.BytesIO(data)) as stream:
            unpacked = stream.read(MAX_TABLE_BYTES + 1)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(path, "must be a complete compressed file", str(error), "Restore it.") from None
    if len(unpacked) > MAX_TABLE_BYTES:
        need = f"must unpack to at most {MAX_TABLE_BYTES >> 30} GiB"
        raise DataError(path, need, "more", "Remove columns, or save it as Parquet.")
    return unpacked


def _rows(path: str, reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """The rows of ``reader``; a quoted cell that is never closed is an error with the line of its row."""
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
    """The cells without empty ones after number ``keep``: some programs end every line with delimiters."""
    end = len(cells)
    while end > keep and not cells[end - 1].strip():
        end -= 1
    return cells[:end]


def _read_parquet(
    path: str, wanted: Sequence[str], options: Mapping[str, str]
) -> Iterator[tuple[str, Cells]]:
    try:
        table = files.read_table(path, remedy="Save it as Parquet, or name it .csv if it is a CSV.")
    except StorageError:
        raise
    except OSError as error:
        _refuse_missing(path, error)
    _refuse_columns(path, wanted, table.column_names, options)
    if PANDAS_INDEX in table.column_names and PANDAS_INDEX not in wanted:
        table = table.drop_columns([PANDAS_INDEX])
    for n, cells in enumerate(table.to_pylist()):
        yield f"row {n + 1}", cells


def _refuse_missing(path: str, error: OSError) -> NoReturn:
    there = not isinstance(error, FileNotFoundError | IsADirectoryError) and not files.is_dir(path)
    got = f"{path}: {error.strerror or error}" if there else path
    remedy = "Put the table there, or set data.csv to its path in data.root."
    if there:
        remedy = "Correct its permissions, or restore it."
    need = "must be a file that can be read" if there else "must name a file in data.root"
    raise DataError("data.csv", need, got, remedy) from None


def _refuse_columns(
    path: str, wanted: Sequence[str], header: Sequence[str], options: Mapping[str, str], delimiter: str = ""
) -> None:
    missing = [name for name in wanted if name not in header]
    if missing:
        need = f"must have the columns {' and '.join(wanted)}"
        these = dict.fromkeys(options[name] for name in missing if name in options)
        columns, them = ("columns", "them") if len(missing) > 1 else ("column", "it")
        remedy = f"Rename the {columns}" + (f", or name {them}: {', '.join(these)}." if these else ".")
        other = next(
            (d for d in DELIMITERS if delimiter and d != delimiter and d in delimiter.join(header)), None
        )
        if other is not None and set(wanted) <= {
            cell.strip() for cell in delimiter.join(header).split(other)
        }:
            remedy = f"Set data.table.delimiter to {other!r}, which is between the columns of this file."
        raise DataError(path, need, ", ".join(header) or "none", remedy)
    repeated = [name for name in header if list(header).count(name) > 1]
    if repeated:
        raise DataError(path, "must have distinct columns", f"{repeated[0]} twice", "Rename one of them.")
    if "" in header[1:]:
        got = f"column {header.index('', 1) + 1} without a name"
        raise DataError(path, "must have a name for every column", got, "Name it, or remove the column.")
