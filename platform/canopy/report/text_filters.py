"""Values of the report as text: the filters of the page's template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from canopy.config.describe import describe_loss
from canopy.report.axes import finite_values
from canopy.runtime.durations import duration_with_units


def score(value: Any) -> str:
    """A score in [0, 1] with three digits; a dash where unknown."""
    return f"{float(value):.3f}" if finite_values([value]) else "–"


def signed(value: float) -> str:
    """A difference of scores with its sign, the minus as U+2212."""
    return f"{value:+.3f}".replace("-", "−")


def interval(bounds: Sequence[float] | None) -> str:
    """An interval as text; empty where there is none."""
    return f"{bounds[0]:.3f} – {bounds[1]:.3f}" if bounds and len(finite_values(bounds)) == 2 else ""


def narrow_interval(bounds: Sequence[float] | None) -> str:
    """An interval without blanks and leading zeros, for narrow columns: ``.709–.743``."""
    return interval(bounds).replace(" ", "").replace("0.", ".")


def loss_text(loss: Any) -> str:
    """A loss in words: a config section (:func:`~canopy.config.describe.describe_loss`) or a plain name."""
    return describe_loss(loss) if isinstance(loss, Mapping) else str(or_dash(loss))


def or_dash(value: Any) -> Any:
    """``value``, or a dash where it is None."""
    return "–" if value is None else value


def breakable(name: str) -> Markup:
    """A name, escaped, with optional line breaks after hyphens, underscores, dots and slashes."""
    return Markup("<wbr>").join(re.split(r"(?<=[-_./])", name))


FILTERS = (score, signed, interval, narrow_interval, or_dash, breakable, loss_text, duration_with_units)
"""Filters that the template uses by name."""
