from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from canopy.config import DataConfig, SensorConfig, TableConfig, allowed_count


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="rot"):
        DataConfig.model_validate({"rot": "x"})


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (0, 0.2), (0.2, 0)])
def test_a_split_leaves_training_rows(val: float, test: float) -> None:
    with pytest.raises(
        ValidationError,
        match=r"data.val_fraction and data.test_fraction must each be .* example 0\.15 and 0\.2",
    ):
        DataConfig(val_fraction=val, test_fraction=test)
    assert DataConfig(val_fraction=0.15, test_fraction=0.2).val_fraction == 0.15


def test_white_is_above_black() -> None:
    with pytest.raises(ValidationError, match=r"data.sensor.white must be above data.sensor.black"):
        SensorConfig(black=100, white=100)
    assert SensorConfig(black=100, white=101).white == 101


def test_levels_below_one_and_below_zero() -> None:
    levels = SensorConfig(black=-25.5, white=0.3)
    assert (levels.black, levels.white) == (-25.5, 0.3)
    assert SensorConfig(white=2**32 - 1).white == 4294967295
    with pytest.raises(ValidationError, match=r"data.sensor.white must be above data.sensor.black"):
        SensorConfig(white=-1)
    for level in (float("nan"), 1e39, "bright"):
        with pytest.raises(ValidationError, match=r"1 validation error"):
            SensorConfig.model_validate({"black": level})


def test_whole_levels_are_whole_numbers_however_they_are_written() -> None:
    for given in (3000, 3000.0, "3000"):
        written = SensorConfig.model_validate({"white": given}).model_dump_json()
        assert written == '{"bands":null,"black":0,"white":3000}'
    assert SensorConfig(black=0.5, white=1.0).model_dump() == {"bands": None, "black": 0.5, "white": 1}


@pytest.mark.parametrize(("given", "delimiter"), [(",", ","), (";", ";"), ("\t", "\t"), (r"\t", "\t")])
def test_a_delimiter_is_one_character(given: str, delimiter: str) -> None:
    assert TableConfig(delimiter=given).delimiter == delimiter


@pytest.mark.parametrize("given", ["", ", ", r"\n", "\n", '"', "tab"])
def test_other_delimiters_are_refused_with_the_way_to_write_a_tab(given: str) -> None:
    with pytest.raises(ValidationError, match=r"must be one character.* or \\t for a tab"):
        TableConfig(delimiter=given)


@pytest.mark.parametrize("field", ["root", "csv", "images"])
@pytest.mark.parametrize(
    "address",
    ["s3://key:hunter2@bucket/chips", "s3://bucket/chips?secret_key=hunter2", "gs://b/c?token=hunter2"],
)
def test_credentials_in_addresses_are_refused(field: str, address: str) -> None:
    given: dict[str, Any] = {field: address}
    with pytest.raises(ValidationError, match=rf"data.{field} must not hold credentials") as caught:
        DataConfig(**given)
    assert "hunter2" not in str(caught.value)


def test_other_addresses_are_taken() -> None:
    address = "s3://bucket/chips?region=eu-west-1&endpoint_override=localhost:9000&scheme=http"
    assert DataConfig(root=address).root == address


@pytest.mark.parametrize(
    ("fraction", "total", "count"), [(0.29, 100, 29), (0, 9, 0), (1, 9, 9), (0.1, 19, 1)]
)
def test_allowed_count(fraction: float, total: int, count: int) -> None:
    assert allowed_count(fraction, total) == count
