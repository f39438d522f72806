"""Styles for QGIS, written beside the layers: a file of the same name with the suffix ``.qml`` is applied."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import quoteattr

COLORS = ("#17714a", "#b4531a", "#3b5fb0", "#8a4aa3", "#8c6d00", "#b03060", "#0f7c8a", "#5d6470")
"""Colors of labels, in their order, repeated: those of the report."""
RAMP = ("#ffffcc", "#a1dab4", "#41b6c4", "#2c7fb8", "#253494")
"""Colors of probabilities from 0 to 1 (ColorBrewer's YlGnBu), readable by the color-blind."""


def color_of(number: int) -> str:
    """Color of label ``number``."""
    return COLORS[number % len(COLORS)]


def raster_style() -> str:
    """Style of the probabilities: the first band in pseudocolor, 0 to 1."""
    last = len(RAMP) - 1
    items = "".join(
        f'<item value="{n / last:g}" color="{color}" label="{n / last:g}" alpha="255"/>'
        for n, color in enumerate(RAMP)
    )
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        '<qgis version="3.22"><pipe><rasterrenderer type="singlebandpseudocolor" band="1" opacity="0.8" '
        'classificationMin="0" classificationMax="1"><rastershader><colorrampshader '
        f'colorRampType="INTERPOLATED" minimumValue="0" maximumValue="1">{items}</colorrampshader>'
        "</rastershader></rasterrenderer></pipe></qgis>\n"
    )


def areas_style(labels: Sequence[str]) -> str:
    """Style of the areas: a color per label."""
    categories, symbols = [], []
    for n, label in enumerate(labels):
        name = quoteattr(label)
        categories.append(f'<category value={name} label={name} symbol="{n}" render="true"/>')
        red, green, blue = (int(color_of(n)[at : at + 2], 16) for at in (1, 3, 5))
        symbols.append(
            f'<symbol name="{n}" type="fill" alpha="0.6"><layer class="SimpleFill"><Option type="Map">'
            f'<Option name="color" type="QString" value="{red},{green},{blue},255"/>'
            f'<Option name="outline_color" type="QString" value="{red},{green},{blue},255"/>'
            "</Option></layer></symbol>"
        )
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        '<qgis version="3.22"><renderer-v2 type="categorizedSymbol" attr="label"><categories>'
        f"{''.join(categories)}</categories><symbols>{''.join(symbols)}</symbols></renderer-v2></qgis>\n"
    )
