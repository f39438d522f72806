"""Counts of a batch job, and the refusal of too many unreadable images."""

from __future__ import annotations

import pyarrow as pa
import pytest

from canopy.errors import DataError
from canopy.inference.tally import Tally, refuse_bad


def test_as_many_unreadable_images_as_allowed_are_let_through() -> None:
    bad = Tally(200, 2, "a.png\0the file is empty")
    refuse_bad(bad, 200, 0.01)
    refuse_bad(Tally(200, 0), 200, 0.0)
    need = r"Image a\.png must be readable \(at most 1\.0% of 199 may not be\)\. Got: the file is empty"
    with pytest.raises(DataError, match=need):
        refuse_bad(bad, 199, 0.01)


def test_tallies_add_up_and_keep_the_first_unreadable_image() -> None:
    bad = pa.table({"id": ["b.png", "c.png"], "problem": ["empty", "cut off"]})
    total = Tally(10, 0).plus(Tally.of_table(5, bad)).plus(Tally(3, 1, "z.png\0late"))
    assert total == Tally(18, 3, "b.png\0empty")
    assert Tally.of_table(4, bad.slice(0, 0)) == Tally(4, 0)
