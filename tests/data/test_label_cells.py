"""Label cells: lists, separators, and names that are probably several labels."""

from __future__ import annotations

from typing import Any

import pytest

from canopy.data.label_cells import (
    has_control_characters,
    parse_labels,
    refuse_control_characters,
    refuse_doubtful_names,
)
from canopy.errors import DataError


@pytest.mark.parametrize(
    ("cell", "separator", "names"),
    [
        ("clear  water", " ", ("clear", "water")),
        ("water clear water", " ", ("water", "clear")),
        ("a, b,,c", ",", ("a", "b", "c")),
        ("dense residential", "", ("dense residential",)),
        ("a b\tc d", "\t", ("a b", "c d")),
        (None, " ", ()),
        (["clear", None, " water "], " ", ("clear", "water")),
        ("['clear', 'water']", " ", ("clear", "water")),
        ('["Urban fabric", "Mixed forest"]', ",", ("Urban fabric", "Mixed forest")),
        ("('clear',)", " ", ("clear",)),
        ("{'clear', 'water'}", " ", ("clear", "water")),
        ("['clear' 'water']", " ", ("clear", "water")),  # as numpy prints; Python would join them
        ("['it\\'s']", " ", ("it's",)),
        ('["for\\u00eat"]', " ", ("forêt",)),
        ("[]", " ", ()),
    ],
)
def test_cells(cell: Any, separator: str, names: tuple[str, ...]) -> None:
    assert parse_labels("row 1", cell, separator) == names


@pytest.mark.parametrize("cell", ["[clear, water]", "[1, 4]", "{'clear': 1}", "['clear]", "[None]"])
def test_lists_that_are_not_quoted_names_are_refused(cell: str) -> None:
    with pytest.raises(DataError, match="row 1 must hold labels as names, or as a list of quoted names"):
        parse_labels("row 1", cell, " ")


@pytest.mark.parametrize(
    ("names", "separator", "remedy"),
    [
        (["clear,water"], " ", "','"),
        (["clear,", "water"], " ", "','"),
        (["clear|water", "road"], " ", "'|'"),
        (["clear;water"], " ", "';'"),
        (["clear;water", "clear", "water"], ",", "';'"),
        (["a/b", "a", "b"], " ", "'/'"),
        (["clear, water", "clear", "water"], "", "','"),
    ],
)
def test_names_that_hold_another_separator_are_refused(names: list[str], separator: str, remedy: str) -> None:
    with pytest.raises(DataError) as error:
        refuse_doubtful_names("t.csv", names, separator)
    assert f"Set data.table.separator to {remedy}" in str(error.value)


@pytest.mark.parametrize(
    ("names", "separator"),
    [
        (["Land principally occupied by agriculture, with vegetation", "Pastures"], ";"),
        (["and/or", "water"], " "),
        (["a,b"], ","),
        (["bare_ground", "blow-down"], " "),
    ],
)
def test_names_that_hold_such_characters_themselves_are_kept(names: list[str], separator: str) -> None:
    refuse_doubtful_names("t.csv", names, separator)


def test_control_characters() -> None:
    assert not has_control_characters("Urban fabric, forêt 森")
    assert not has_control_characters("wide\u3000blank")
    for text in ("a\nb", "\x1b[31m", "a\u2028b", "\x9b"):
        assert has_control_characters(text)
    with pytest.raises(DataError, match=r"Got: 'a\\nb'"):
        refuse_control_characters("t.csv", ["fine", "a\nb"])


def test_an_empty_python_set_has_no_labels() -> None:
    assert parse_labels("row 1", "set()", " ") == ()
    assert parse_labels("row 1", "{'a', 'b'}", " ") == ("a", "b")


@pytest.mark.parametrize("name", ["nan", "NaN", "None", "NULL", "<NA>"])
def test_a_missing_value_is_not_a_label(name: str) -> None:
    with pytest.raises(DataError, match="Leave the cells of images without labels empty"):
        refuse_doubtful_names("labels.csv", ["road", name], " ")
