"""Memory limit for one file of predictions, checked against the declared sizes before allocation."""

from __future__ import annotations

from canopy.errors import PredictionsError

MAX_BYTES = 2**30
"""Maximum size of one file in bytes, on disk and unpacked."""
MAX_COLUMNS = 2**16
"""Maximum number of columns in a table."""


def refuse_oversize(thing: str, declared: int) -> None:
    """Refuse a file or array that needs more than :data:`MAX_BYTES`.

    Args:
        thing: the file or array, for the message.
        declared: bytes that it declares.

    Raises:
        PredictionsError: when ``declared`` is too large.
    """
    if declared > MAX_BYTES:
        got = f"{declared / 2**20:,.0f} MiB declared"
        remedy = "Check the file, or cut the member into several files and name each of them."
        raise PredictionsError(thing, f"must need at most {MAX_BYTES >> 20:,} MiB of memory", got, remedy)
