"""Label names in the cells of a table.

A cell holds names between separators, a Python or JSON list of quoted names, or (in Parquet) a list.
Ambiguous cells are refused: a name that holds another usual separator is probably several labels.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Container, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from canopy.errors import DataError

STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
"""A quoted name, in Python's or JSON's form."""
BRACKETS = {"[": "]", "(": ")", "{": "}"}
SEPARATORS = (",", ";", "|", "\t", "/")
"""Characters that usually separate labels in a cell, besides the blank."""
EMPTY_LISTS = {"set()", "frozenset()", "list()", "tuple()"}
"""Python's text of collections without elements, besides the brackets."""
MISSING_VALUES = {"nan", "NaN", "NAN", "<NA>", "N/A", "None", "NULL", "null"}
"""What programs write for an empty cell; as a label it is doubtful."""
LabelRow = tuple[str, tuple[str, ...]]
"""A row: its place in the table ("line 3"), and the names in its cell of labels."""
CONTROL = {"Cc", "Zl", "Zp", "Cs"}
"""Unicode categories that break lines or change a terminal."""


def parse_labels(where: str, cell: Any, separator: str) -> tuple[str, ...]:
    """The names in one cell, in order, each once.

    Args:
        where: the cell's row, for errors.
        cell: text, a list, or None for no labels.
        separator: text between names; empty where a cell is one name. Runs of blanks count as one.

    Raises:
        DataError: when the cell looks like a list and cannot be read as one.
    """
    if isinstance(cell, list | tuple):
        parts = [cell_text(part) for part in cell]
    else:
        text = cell_text(cell)
        if text in EMPTY_LISTS:
            parts = []
        elif text[:1] in BRACKETS and text[-1:] == BRACKETS[text[:1]]:
            parts = _quoted_names(where, text, separator)
        elif not separator:
            parts = [text]
        else:
            parts = [part.strip() for part in text.split(separator.strip(" ") or None)]
    return tuple(dict.fromkeys(part for part in parts if part))


def cell_text(cell: Any) -> str:
    """A cell as text without blanks around it; empty for None."""
    return "" if cell is None else str(cell).strip()


def _quoted_names(where: str, text: str, separator: str) -> list[str]:
    """The names of a Python list, set or tuple, a JSON list, or a printed numpy array.

    The strings are read one by one: Python would join two strings without a comma into one.
    """
    inner = text[1:-1]
    if STRING.sub("", inner).strip(" ,\n\r\t"):
        unquoted = f"them without brackets, between {separator!r}" if separator else "one without brackets"
        raise DataError(
            where,
            "must hold labels as names, or as a list of quoted names",
            text[:80],
            f'Quote the names (["clear", "water"]), or write {unquoted}.',
        )
    return [str(ast.literal_eval(found)).strip() for found in STRING.findall(inner)]


def refuse_doubtful_names(
    path: str, column: str, rows: Sequence[LabelRow], separator: str, known: Container[str] = ()
) -> None:
    """Check the names that a label column gave.

    Args:
        path: the table, for errors.
        column: its column of labels, for errors.
        rows: the rows of the table.
        separator: separator that was used.
        known: names that are right whatever characters they hold.

    Raises:
        DataError: when a name is a missing value, or holds another separator and is probably several labels.
            It names the row where most rows show that ``separator`` is right, else the column.
    """
    names = {name for _, found in rows for name in found if name not in known}
    for name in sorted(names):
        if name in MISSING_VALUES:
            thing = f"{path}, {_first_row(rows, {name})}, column {column}"
            remedy = "Leave the cells of images without labels empty; if this is a label, rename it."
            raise DataError(thing, "must not hold a missing value as a label", f"the label {name!r}", remedy)
        other = _other_separator(name, names, separator)
        if other is not None:
            doubtful = {one for one in names if _other_separator(one, names, separator) == other}
            raise _doubtful(path, column, rows, separator, doubtful, other)


def _other_separator(name: str, names: AbstractSet[str], separator: str) -> str | None:
    """A usual separator in ``name``, by which it is probably several labels; None without one."""
    for other in SEPARATORS:
        if other not in name or other in separator:
            continue
        parts = [part.strip() for part in name.split(other) if part.strip()]
        # Blanks are the default separator: nobody has said that commas belong to the names.
        if (other != "/" and not separator.strip()) or (len(parts) > 1 and names >= set(parts)):
            return other
    return None


def _doubtful(
    path: str, column: str, rows: Sequence[LabelRow], separator: str, doubtful: AbstractSet[str], other: str
) -> DataError:
    """The error for names that hold ``other``: these rows are wrong, or the separator is."""
    wrong = sum(not doubtful.isdisjoint(found) for _, found in rows)
    right = sum(len(found) > 1 and doubtful.isdisjoint(found) for _, found in rows)
    need, got = f"must hold labels between {separator!r} (data.table.separator)", sorted(doubtful)[0]
    if right > wrong:
        thing = f"{path}, {_first_row(rows, doubtful)}, column {column},"
        got = next(name for _, found in rows for name in found if name in doubtful)
        remedy = f"Correct it: {wrong} of {len(rows)} rows {'hold' if wrong > 1 else 'holds'} {other!r}."
    else:
        thing = f"{path}, column {column},"
        found = " or ".join(map(repr, _separators_in(rows, separator, other)))
        remedy = (
            f"Set data.table.separator to {found}, or to another text that is between the labels; if such a "
            "text belongs to a name, list all label names in data.labels."
        )
    return DataError(thing, need, f"the label {got!r}", remedy)


def _separators_in(rows: Sequence[LabelRow], separator: str, other: str) -> list[str]:
    """The usual separators in the names, ``other`` among them; a slash often belongs to a name."""
    usual = [mark for mark in SEPARATORS if mark not in separator and mark in (other, *SEPARATORS[:-1])]
    return [mark for mark in usual if any(mark in name for _, found in rows for name in found)]


def _first_row(rows: Sequence[LabelRow], names: AbstractSet[str]) -> str:
    return next(place for place, found in rows if not names.isdisjoint(found))


def refuse_control_characters(thing: str, names: Iterable[str]) -> None:
    """Refuse label names that hold control characters or line breaks.

    Raises:
        DataError: naming the first one.
    """
    for name in names:
        if has_control_characters(name):
            need = "must have labels without control characters and line breaks"
            raise DataError(thing, need, ascii(name), "Rename that label.")


def has_control_characters(text: str) -> bool:
    """Whether ``text`` holds a control character or a line break."""
    return not text.isprintable() and any(unicodedata.category(letter) in CONTROL for letter in text)
