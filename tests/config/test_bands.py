from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from canopy.config import BandConfig, DataConfig, Experiment, derive, fingerprint
from canopy.config.presets import preset
from canopy.errors import ConfigError

RED, NIR = BandConfig(name="red", band=3), BandConfig(name="nir", band=4)


def test_no_bands_leave_the_fingerprint() -> None:
    data = preset("demo").data
    assert fingerprint(derive(data, bands=())) == fingerprint(data)
    assert fingerprint(derive(data, max_nodata=0.25)) != fingerprint(data)
    assert fingerprint(derive(data, bands=(RED,))) != fingerprint(derive(data, bands=(NIR,)))


@pytest.mark.parametrize(
    ("bands", "more", "part"),
    [
        ([{"name": "nir"}, {"name": "nir"}], {}, "nir twice"),
        ([{"name": "nir"}, {"name": "x", "expression": "ndvi"}], {}, "must use bands that come before it"),
        ([{"name": "x", "expression": "1 + 1", "range": [0, 3]}], {}, "must hold a band of a file"),
        ([{"name": "nir", "scale": 0.1}], {}, "must be set for a band with a scale"),
        ([{"name": "nir", "scale": 0}], {}, "must not be 0"),
        ([{"name": "nir", "range": [1, 0]}], {}, "must begin with the lower value"),
        ([{"name": "nir", "file": "../x.tif"}], {}, "must be relative"),
        ([{"name": "nir", "file": "{name}.tif"}], {}, "must hold no other name in braces"),
        ([{"name": "nir", "file": "a", "column": "b"}], {}, "must have one of file and column"),
        ([{"name": "nir", "column": "b"}], {}, "must be read from a table"),
        ([{"name": "nir"}], {"display": ["nir", "red", "nir"]}, "must name bands of data.bands"),
        ([{"name": "nir"}], {"sensor": {"white": 3000}}, "must not be set with data.bands"),
        ([{"name": "a"}, {"name": "x", "expression": "a", "band": 2}], {}, "must not be set for a band with"),
    ],
)
def test_bands_that_cannot_be_are_refused(bands: Any, more: dict[str, Any], part: str) -> None:
    with pytest.raises((ConfigError, ValidationError)) as caught:
        DataConfig.model_validate({"bands": bands, **more})
    assert part in str(caught.value)


def colored(tiny: Experiment, name: str, bands: tuple[BandConfig, ...]) -> Experiment:
    """An experiment over bands with a step of color augmentation."""
    variant = derive(tiny.variants[0], augment=derive(tiny.variants[0].augment, **{name: 0.1}))
    return derive(tiny, data=derive(tiny.data, bands=bands), variants=(variant,))


@pytest.mark.parametrize("name", ["saturation", "hue", "grayscale"])
def test_color_steps_need_red_green_and_blue_of_one_unit(tiny: Experiment, name: str) -> None:
    with pytest.raises((ConfigError, ValidationError), match=r"must be 0 unless data.bands declares red, gr"):
        colored(tiny, name, (RED, NIR))
    colors = tuple(BandConfig(name=color, band=n) for n, color in enumerate(("blue", "red", "green"), 1))
    assert colored(tiny, name, (NIR, *colors)).data.bands
    stretched = BandConfig(name="green", band=3, range=(0, 3000))
    with pytest.raises((ConfigError, ValidationError), match=r"one range.*green \(0, 3000\)"):
        colored(tiny, name, (*colors[:2], stretched))


def test_band_dropout_needs_bands(tiny: Experiment) -> None:
    variant = derive(tiny.variants[0], augment=derive(tiny.variants[0].augment, band_dropout=0.1))
    with pytest.raises((ConfigError, ValidationError), match=r"must be 0 without data.bands"):
        derive(tiny, variants=(variant, *tiny.variants[1:]))
