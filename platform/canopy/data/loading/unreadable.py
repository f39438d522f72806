"""Images that became unreadable after ``prepare``.

This happens only to images that are decoded on demand: a disk fails, a file is deleted. Such an image is
skipped, counted and named. The training stops when more than ``data.max_bad_fraction`` of the data set is
unreadable; distinct images count, so further epochs add nothing. In a training batch another image of the
same batch replaces it (:mod:`canopy.data.loading.batch_streams`). In predictions it gets the label rates of
the training rows (:meth:`UnreadableImages.fill_logits`), so that every member's files keep a row for every
id.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.config import allowed_count
from canopy.errors import DataError
from canopy.runtime.collectives import gather_objects
from canopy.storage import files

logger = logging.getLogger(__name__)

MAX_NAMED = 3
"""Number of images that an error or a summary names."""


@dataclass
class UnreadableImages:
    """The images that one training could not read.

    Args:
        rows: number of images of the data set.
        max_bad_fraction: share of them that may be unreadable, 0 to 1.
    """

    rows: int
    max_bad_fraction: float
    reasons: dict[int, str] = field(default_factory=dict)
    """File and problem of each unreadable image, by row."""
    _not_scored: set[int] = field(default_factory=set)

    def record(self, batch: Mapping[str, NDArray[Any]], scoring: bool = False) -> None:
        """Record the unreadable images of a batch.

        Args:
            batch: batch of a stream; ``problem`` (n,) is there only where images are decoded on demand.
            scoring: whether the batch is scored; else it is a training batch.

        Raises:
            DataError: when more images are unreadable than allowed.
        """
        if "problem" not in batch:
            return
        bad = batch["problem"] != ""
        wanted_n = batch["row"] if scoring else batch["wanted"]
        found = dict(zip(wanted_n[bad].tolist(), batch["problem"][bad].tolist(), strict=True))
        if scoring:
            self._not_scored -= set(wanted_n[~bad].tolist())
            self._not_scored |= set(found)
        for row in found.keys() - self.reasons.keys():
            logger.warning("unreadable image: %s", found[row])
        self.merge([found])

    def merge(self, others: Iterable[Mapping[int, str]]) -> None:
        """Add the unreadable images of other ranks.

        Raises:
            DataError: when more images are unreadable than allowed.
        """
        for reasons in others:
            self.reasons |= reasons
        if len(self.reasons) > allowed_count(self.max_bad_fraction, self.rows):
            raise DataError(
                "Images that could be read when the data set was prepared",
                f"must still be readable, except {self.max_bad_fraction:.4g} of all (data.max_bad_fraction)",
                f"{len(self.reasons)} of {self.rows} unreadable, first {'; '.join(self.examples())}",
                "Restore them, raise data.max_bad_fraction, or delete the run directory's prepare/ to "
                "validate the images again.",
            )

    def gather(self) -> None:
        """Exchange the unreadable images between all ranks; a collective call.

        Raises:
            DataError: on every rank, when all ranks together found too many.
        """
        self.merge(gather_objects(self.reasons))

    def examples(self) -> list[str]:
        """The first few images, each with its problem."""
        return [self.reasons[row] for row in sorted(self.reasons)[:MAX_NAMED]]

    def fill_logits(
        self, rows_n: NDArray[np.int64], logits_nK: NDArray[np.float32], rates_K: NDArray[np.float64]
    ) -> None:
        """Replace the logits of unreadable images by those of the label rates, clipped away from 0 and 1.

        Args:
            rows_n: row numbers of the logits.
            logits_nK: logits, changed in place.
            rates_K: label rates of the training rows.
        """
        missing_n = np.isin(rows_n, list(self._not_scored))
        safe_K = np.clip(rates_K, 1e-6, 1 - 1e-6)
        logits_nK[missing_n] = np.log(safe_K / (1 - safe_K))

    def write(self, path: str, ids: Sequence[str]) -> None:
        """Write a JSON file with the problem of every unreadable image by id."""
        files.write_json(path, {ids[row]: self.reasons[row] for row in sorted(self.reasons)})


def unreadable_summary(path: str) -> str | None:
    """The content of a file of :meth:`UnreadableImages.write` as a phrase; None if it is empty."""
    found: dict[str, str] = files.read_json(path)
    if not found:
        return None
    first = "; ".join(f"{name}: {reason}" for name, reason in list(found.items())[:MAX_NAMED])
    return f"{len(found)} images could no longer be read and were skipped, {path} names them, first {first}"
