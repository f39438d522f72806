"""Names of the vector formats, apart from the packages that write them."""

from __future__ import annotations

from typing import Literal, get_args

Format = Literal["geoparquet", "geojson", "gpkg"]
FORMATS: tuple[Format, ...] = get_args(Format)
