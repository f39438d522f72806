from __future__ import annotations

import pytest

from canopy.config.band_expression import expression_names, parse_expression
from canopy.errors import ConfigError


def test_names_of_an_expression() -> None:
    assert expression_names(
        parse_expression("2.5 * (nir - red) / (nir + 6 * red ** 2 + sqrt(blue))", "x")
    ) == (
        "nir",
        "red",
        "blue",
    )
    assert expression_names(parse_expression("NDWI", "x")) == ("green", "nir")


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "nir.real",
        "nir[0]",
        "(lambda: 1)()",
        "nir if nir else red",
        "nir and red",
        "nir < red",
        "'text'",
        "nir ** red",
        "nir ** 99",
        "9 ** (9 ** 9)",
        "max(nir)",
        "max(nir, key=red)",
        "eval(nir)",
        "True",
        "1e300",
        "nir // 2",
        "[nir]",
        "nir; red",
        "",
        "(" * 300,
        "+".join(["nir"] * 60),
        "n" * 500,
        "nir\x00",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_expression(text, "data.bands: x.expression")
    assert caught.value.thing == "data.bands: x.expression"
