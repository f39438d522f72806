"""The memory that one file of predictions may need, checked against declared sizes before it is allocated."""

from __future__ import annotations

from canopy.errors import PredictionsError

MAX_BYTES = 2**30
"""Most bytes of one file, on disk and unpacked."""
MAX_COLUMNS = 2**16
"""Most columns of a table."""


def refuse_oversize(thing: str, declared: int) -> None:
    """Refuse what would need more than :data:`MAX_BYTES`.

    Args:
        thing: the file or array, for the message.
        declared: bytes that it would need.

    Raises:
        PredictionsError: when ``declared`` is too large.
    """
    if declared > MAX_BYTES:
        got = f"{declared / 2**20:,.0f} MiB declared"
        remedy = "Check the file, or cut the member into several files and name each of them."
        raise PredictionsError(thing, f"must need at most {MAX_BYTES >> 20:,} MiB of memory", got, remedy)
