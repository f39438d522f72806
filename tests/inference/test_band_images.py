"""Chips of several files are found by the patterns of their bands."""

from __future__ import annotations

import pytest
from tests.bands import layout

from canopy.bands import SEVERAL_FILES, BandLayout
from canopy.config import BandConfig
from canopy.inference.band_images import chips_by_pattern, has_patterns
from canopy.inference.chips import ChipDecoder


def of(*patterns: str | None) -> BandLayout:
    """A layout of one band per pattern."""
    return layout(*(BandConfig(name=f"b{n}", file=pattern) for n, pattern in enumerate(patterns)))


@pytest.mark.parametrize(
    ("patterns", "files", "names"),
    [
        (
            ("{id}/{id}_B02.tif", "{id}/{id}_B03.tif"),
            [
                "T1/P_1/P_1_B02.tif",
                "T1/P_1/P_1_B03.tif",
                "T2/P_2/P_2_B02.tif",
                "Q/Q_B03.tif",
                "Q/other_B02.tif",
            ],
            ["Q", "T1/P_1", "T2/P_2"],
        ),
        (("{id}_a.tif", "{id}_b.tif"), ["x/7_a.tif", "7_b.tif", "7_c.tif", "_a.tif"], ["7", "x/7"]),
        (("red/{id}.tif", "nir/{id}.tif"), ["red/1.tif", "nir/1.tif", "s/nir/2.tif", "3.tif"], ["1", "s/2"]),
        (("{id}.tif", "{id}_nir.tif"), ["7.tif", "7_nir.tif", "x/8_nir.tif"], ["7", "x/8"]),
        (("{id}/B2.jp2", "height.tif"), ["p/B2.jp2", "height.tif"], ["p"]),
        (("{id}/B+2.tif",), ["p/BB2.tif"], []),
    ],
)
def test_chips_are_named_by_their_paths(
    patterns: tuple[str, ...], files: list[str], names: list[str]
) -> None:
    found = chips_by_pattern(dict.fromkeys(files, 1), of(*patterns))
    assert list(found.paths) == names
    assert list(found.sizes) == names


@pytest.mark.parametrize("name", ["P_1", "S2A.2017.1", "a.b/c"])
def test_the_decoder_finds_the_files_again(name: str) -> None:
    last = name.rpartition("/")[2]
    files = [f"{name}/{last}_B{n}.tif" for n in (2, 3)]
    bands = of("{id}/{id}_B2.tif", "{id}/{id}_B3.tif")
    found = chips_by_pattern(dict.fromkeys(files, 1), bands)
    assert found.sizes == {name: [(file, 1) for file in files]}
    assert ChipDecoder(8, layout=bands).addresses(found.paths[name]) == SEVERAL_FILES.join(files)


def test_files_at_the_chips_own_path_need_no_pattern() -> None:
    assert has_patterns(of("{id}_a.tif"))
    assert not has_patterns(of(None))
    assert not has_patterns(of(None, "{id}_a.tif")), "the chip's path is that of its first file"
    assert not has_patterns(of("all.tif"))
