"""Names of the vector formats, apart from the packages that write them."""

from __future__ import annotations

import importlib.util
from typing import Literal, get_args

from canopy.errors import ConfigError

Format = Literal["geoparquet", "geojson", "gpkg"]
FORMATS: tuple[Format, ...] = get_args(Format)


def require_packages(thing: str) -> None:
    """Check that the packages of the extra ``scenes`` are installed.

    Raises:
        ConfigError: about ``thing``, when one is missing.
    """
    for package in ("shapely", "pyogrio"):
        if importlib.util.find_spec(package) is None:
            remedy = "Install them: pip install 'canopy-eo[scenes]'."
            raise ConfigError(thing, "needs further packages", f"no {package}", remedy)
