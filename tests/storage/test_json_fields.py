"""JSON is read field by field; what is wrong is named by file and path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from canopy.errors import InputError, PredictionsError
from canopy.storage.json_fields import JsonField


def parse(text: str) -> JsonField:
    return JsonField.parse(text.encode(), "f.json", PredictionsError, "Restore it.")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "must be a JSON file"),
        ('{"a": NaN}', "Got: the number NaN"),
        ('{"a": -Infinity}', "Got: the number -Infinity"),
        ('{"a": 1, "a": 2}', "Got: the key 'a' more than once"),
        ("[" * 100_000, "must be a JSON file"),
        ("1" * 5000, "must be a JSON file"),
    ],
)
def test_documents_that_are_not_strict_json_are_refused(text: str, match: str) -> None:
    with pytest.raises(PredictionsError, match=match):
        parse(text)


@pytest.mark.parametrize(
    ("value", "method", "arguments"),
    [
        ("null", "number", ()),
        ("true", "number", ()),
        ("1e999", "number", ()),
        ("2", "number", (0, 1)),
        ("1.5", "integer", ()),
        ("true", "integer", ()),
        ("-1", "integer", ()),
        ("1", "flag", ()),
        ('"b"', "choice", (("a",),)),
        ("[1]", "text", ()),
        ('["a", 1]', "texts", ()),
        ("{}", "items", ()),
        ("[]", "mapping", ()),
        ('{"b": 1, "a": 2}', "keyed", (["a", "b"],)),
        ('{"a": 1}', "keyed", (["a", "b"],)),
        ("[[1, 2], [3]]", "array", ((2, None),)),
        ("[[1, 2]]", "array", ((2, 2),)),
        ("[1, null]", "array", ((2,),)),
        ("[1, 2]", "array", ((2,), 0, 1)),
        ("[" + "9" * 400 + "]", "array", ((1,),)),
    ],
)
def test_values_of_another_type_or_range_are_refused_by_path(
    value: str, method: str, arguments: tuple[Any, ...]
) -> None:
    field = parse(f'{{"bare soil": {{"part": {value}}}}}').get("bare soil").get("part")
    with pytest.raises(InputError, match=r"^f\.json: \['bare soil'\]\.part.* must .*Restore it\.$"):
        getattr(field, method)(*arguments)


def test_sound_values_are_returned() -> None:
    field = parse('{"n": 2, "x": 0.5, "t": ["a"], "m": [[1, 2], [3, 4]], "none": null}')
    assert field.get("n").integer() == 2
    assert field.get("x").number(0, 1) == 0.5
    assert field.get("t").texts() == ("a",)
    np.testing.assert_array_equal(field.get("m").array((2, None)), [[1, 2], [3, 4]])
    assert field.get("none").number_or_none() is None
    assert field.optional("none") is None
    assert field.optional("missing") is None
    with pytest.raises(PredictionsError, match=r"f\.json: missing must be present"):
        field.get("missing")
