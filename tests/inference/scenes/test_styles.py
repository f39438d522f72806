"""Style files are XML with a color for each label, whatever its name."""

from __future__ import annotations

from xml.etree import ElementTree

from canopy.inference.scenes.styles import areas_style, raster_style


def test_styles_are_xml() -> None:
    labels = ["road", 'a "b" <c> & d', *(f"label{n}" for n in range(10))]
    tree = ElementTree.fromstring(areas_style(labels))
    assert [one.get("value") for one in tree.iter("category")] == labels
    assert len({one.get("name") for one in tree.iter("symbol")}) == len(labels)
    items = [float(str(one.get("value"))) for one in ElementTree.fromstring(raster_style()).iter("item")]
    assert items == [0, 0.25, 0.5, 0.75, 1]
