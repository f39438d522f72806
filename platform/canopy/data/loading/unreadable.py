"""Images that could be read when the data set was prepared, and cannot be when a training wants them.

Only data sets that are decoded as they stream meet this: disks fail, people tidy up. Such an image is
skipped, counted and named, and stops the training only when more than ``data.max_bad_fraction`` of the data
set is gone. Counted are distinct images, so an epoch more costs nothing. In a training batch another image
of the same batch stands in for it (:mod:`canopy.data.loading.loader`); where it is to be scored, the label rates of
the training rows do (:meth:`UnreadableImages.fill`): the best that can be said of an image that nobody can see. So
every id keeps its row, in the files of every member.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.config import allowed_count
from canopy.errors import DataError
from canopy.runtime.collectives import gather_objects
from canopy.storage import files

NAMED = 3


@dataclass
class UnreadableImages:
    """What one training has failed to read.

    Args:
        rows: how many images the data set has.
        max_bad_fraction: of them may be unreadable.
    """

    rows: int
    max_bad_fraction: float
    reasons: dict[int, str] = field(default_factory=dict)
    """Of each image by its row: its file and what was wrong."""
    _unscored: set[int] = field(default_factory=set)

    def note(self, batch: Mapping[str, NDArray[Any]], scoring: bool = False) -> None:
        """Look a batch of the stream over.

        Args:
            batch: with ``problem`` (n,), empty where all is well, where images are decoded as they stream.
            scoring: whether its images are to be scored, one by one, instead of learned from.

        Raises:
            DataError: when more images are unreadable than may be.
        """
        if "problem" not in batch:
            return
        bad = batch["problem"] != ""
        wanted_n = batch["row"] if scoring else batch["wanted"]
        found = dict(zip(wanted_n[bad].tolist(), batch["problem"][bad].tolist(), strict=True))
        if scoring:
            self._unscored -= set(wanted_n[~bad].tolist())
            self._unscored |= set(found)
        self.merge([found])

    def merge(self, others: Iterable[Mapping[int, str]]) -> None:
        """Add what other ranks have found.

        Raises:
            DataError: when more images are unreadable than may be.
        """
        for reasons in others:
            self.reasons |= reasons
        if len(self.reasons) > allowed_count(self.max_bad_fraction, self.rows):
            raise DataError(
                "Images that could be read when the data set was prepared",
                f"must still be readable, but for {self.max_bad_fraction:.4g} of all (data.max_bad_fraction)",
                f"{len(self.reasons)} of {self.rows} unreadable, first {'; '.join(self.named())}",
                "Restore them, raise data.max_bad_fraction, or delete the run directory's prepare/ to "
                "validate the images again.",
            )

    def agree(self) -> None:
        """Let every rank know what all have found; a collective call.

        Raises:
            DataError: on every rank, when together they have found too many.
        """
        self.merge(gather_objects(self.reasons))

    def named(self) -> list[str]:
        """The first few, each with its reason."""
        return [self.reasons[row] for row in sorted(self.reasons)[:NAMED]]

    def fill(
        self, rows_n: NDArray[np.int64], logits_nK: NDArray[np.float32], rates_K: NDArray[np.float64]
    ) -> None:
        """Put the logits of the label rates, kept off 0 and 1, where there was no image to score."""
        gone = np.isin(rows_n, list(self._unscored))
        safe_K = np.clip(rates_K, 1e-6, 1 - 1e-6)
        logits_nK[gone] = np.log(safe_K / (1 - safe_K))

    def write(self, path: str, ids: Sequence[str]) -> None:
        """Name them all in a JSON file: reasons by id."""
        files.write_json(path, {ids[row]: self.reasons[row] for row in sorted(self.reasons)})


def unreadable_summary(path: str) -> str | None:
    """What :meth:`UnreadableImages.write` wrote to ``path`` as a phrase for the console; None for an empty one."""
    found: dict[str, str] = files.read_json(path)
    if not found:
        return None
    first = "; ".join(f"{name}: {reason}" for name, reason in list(found.items())[:NAMED])
    return f"{len(found)} images could no longer be read and were skipped, {path} names them, first {first}"
