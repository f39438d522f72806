"""CSV for people: formulas are prefixed, control characters escaped, numbers untouched."""

from __future__ import annotations

import csv
import io

import pytest

from canopy.predictions.safe_csv import csv_bytes, safe_cell


@pytest.mark.parametrize("text", ["=cmd|'/c calc'!A1", "+1", "-1", "@SUM(1)", "＝1+1"])
def test_formulas_get_an_apostrophe(text: str) -> None:
    assert safe_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["road", "a=b", "1-2", " =1", "für", ""])
def test_other_text_stays(text: str) -> None:
    assert safe_cell(text) == text


def test_control_characters_cannot_forge_a_line_and_numbers_stay_numbers() -> None:
    rows = [["a\nb", -0.25, None], ["\x1b[31mred", 7, "\u202egnp"]]
    data = csv_bytes(["label", "=gain", "note"], rows)
    assert data.decode().splitlines() == [
        "label,'=gain,note",
        r"a\nb,-0.25,",
        r"\x1b[31mred,7,\u202egnp",
    ]
    assert [len(row) for row in csv.reader(io.StringIO(data.decode()))] == [3, 3, 3]
