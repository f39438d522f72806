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


def test_the_two_ways_to_write_a_list_are_shown() -> None:
    with pytest.raises(DataError, match=r'Quote the names \(\["clear", "water"\]\), or .*, between \';\'\.$'):
        parse_labels("row 1", "[clear, water]", ";")
    with pytest.raises(DataError, match=r"or write one without brackets\.$"):
        parse_labels("row 1", "[clear, water]", "")
    assert parse_labels("row 1", '["clear", "water"]', "") == ("clear", "water")


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
        refuse_doubtful_names("t.csv", "tags", [("line 2", tuple(names))], separator)
    assert str(error.value).startswith("t.csv, column tags, must hold labels between")
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
    refuse_doubtful_names("t.csv", "tags", [("line 2", tuple(names))], separator)


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
    need = (
        "labels.csv, line 3, column tags must not hold a missing value .* Leave the cells of images without"
    )
    with pytest.raises(DataError, match=need):
        refuse_doubtful_names("labels.csv", "tags", [("line 2", ("road",)), ("line 3", (name,))], " ")


@pytest.mark.parametrize("cell", ["cloudy, road", "cloudy,road", "cloudy|road"])
def test_one_malformed_row_is_named_where_the_separator_is_right(cell: str) -> None:
    rows = [(f"line {n}", parse_labels("", "water road", " ")) for n in range(2, 202)]
    rows[9] = ("line 11", parse_labels("", cell, " "))
    with pytest.raises(DataError) as error:
        refuse_doubtful_names("t.csv", "tags", rows, " ")
    mark = "|" if "|" in cell else ","
    name = "cloudy," if " " in cell else cell
    assert str(error.value) == (
        "t.csv, line 11, column tags, must hold labels between ' ' (data.table.separator). "
        f"Got: the label '{name}'. Correct it: 1 of 200 rows holds '{mark}'."
    )


def test_a_separator_is_wrong_where_no_row_shows_that_it_is_right() -> None:
    rows = [(f"line {n}", ("clear",)) for n in range(2, 202)]
    rows[9] = ("line 11", ("cloudy,road",))
    with pytest.raises(DataError, match=r"^t\.csv, column tags, .*Set data\.table\.separator to ','"):
        refuse_doubtful_names("t.csv", "tags", rows, " ")


def test_every_separator_that_may_be_meant_is_named() -> None:
    cell = "Agriculture, pasture;Forest"
    rows = [("line 2", parse_labels("", cell, " ")), ("line 3", ("and/or",))]
    with pytest.raises(
        DataError, match=r"separator to ',' or ';', or to .* list all label names in data\.labe"
    ):
        refuse_doubtful_names("t.csv", "tags", rows, " ")
    names = parse_labels("", cell, ";")
    refuse_doubtful_names("t.csv", "tags", [("line 2", names)], ";")
    assert names == ("Agriculture, pasture", "Forest")


def test_known_names_may_hold_a_separator() -> None:
    refuse_doubtful_names("t.csv", "tags", [("line 2", ("x,y", "z"))], " ", known=("x,y",))
