"""Counts of a batch job: images that are predicted, and images that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from canopy.config import allowed_count
from canopy.errors import DataError


@dataclass(frozen=True)
class Tally:
    """Images of the shards that are written, and those among them that are unreadable."""

    images: int
    bad: int
    first_bad: str = ""
    """Name and problem of the first unreadable image, with a NUL between them."""

    @classmethod
    def of_table(cls, images: int, bad: pa.Table) -> Self:
        """The tally of ``images`` images; ``bad`` has a row, ``id`` and ``problem``, per unreadable one."""
        first = f"{bad['id'][0].as_py()}\0{bad['problem'][0].as_py()}" if bad.num_rows else ""
        return cls(images, bad.num_rows, first)

    def plus(self, other: Tally) -> Tally:
        """The sum of two tallies; the first unreadable image is this one's, if it has any."""
        return Tally(self.images + other.images, self.bad + other.bad, self.first_bad or other.first_bad)


def refuse_bad(tally: Tally, total: int, max_bad_fraction: float) -> None:
    """Refuse more unreadable images than allowed.

    Raises:
        DataError: naming the first one.
    """
    if tally.bad > allowed_count(max_bad_fraction, total):
        name, _, problem = tally.first_bad.partition("\0")
        need = f"must be readable (at most {max_bad_fraction:.1%} of {total:,} may not be)"
        remedy = "Repair or remove it, or raise --max-bad-fraction."
        raise DataError(f"Image {name}", need, problem, remedy)
