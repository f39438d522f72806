r"""CSV output in which no text can act as a formula or forge a line.

A spreadsheet runs a cell that begins with ``=``, ``+``, ``-`` or ``@`` as a formula (OWASP, "CSV injection").
Text that begins so gets a leading apostrophe, and control characters are written as escapes (``\\n``,
``\\x1b``). Numbers are written as they are.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from canopy.errors import printable

FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""First characters of a formula."""


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A table as CSV in UTF-8, every text made safe by :func:`safe_cell`.

    Args:
        header: column names.
        rows: cells of each row: text, numbers, or None for an empty cell.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([safe_cell(name) for name in header])
    writer.writerows([safe_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue().encode()


def safe_cell(text: str) -> str:
    """``text`` as a cell: control characters escaped, an apostrophe before text that would be a formula."""
    escaped = printable(text)
    return f"'{escaped}" if escaped.startswith(FORMULA_STARTS) else escaped
