"""The ordered set of label names: column ``k`` of every array with suffix ``_K`` belongs to ``names[k]``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canopy.errors import DataError, nearest


@dataclass(frozen=True)
class LabelSet:
    """Ordered, distinct, non-empty label names.

    Args:
        names: at least one label name, in the order of the columns.

    Raises:
        DataError: when there is no name, or one is empty or repeated.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise DataError("The label set", "must hold at least one label", 0, "Check the label column.")
        seen: set[str] = set()
        for name in self.names:
            if not name or name in seen:
                problem = "must have distinct, non-empty names"
                raise DataError("The label set", problem, repr(name), "Rename or remove that label.")
            seen.add(name)

    @classmethod
    def of(cls, rows: Iterable[Iterable[str]]) -> LabelSet:
        """The labels that occur in ``rows``, in alphabetical order."""
        return cls(tuple(sorted({label for row in rows for label in row})))

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str, option: str | None = None) -> int:
        """Column number of ``name``; ``option`` is the option that gave it, for the error.

        Raises:
            DataError: when there is no such label.
        """
        if name not in self.names:
            thing, need = "A label", "must be in the label set"
            if option is not None:
                thing, need = option, "must name labels of the data"
            raise DataError(thing, need, name, nearest(name, self.names))
        return self.names.index(name)

    def encode(self, rows: Sequence[Iterable[str]]) -> NDArray[np.uint8]:
        """Multi-hot targets, shape (N, K), values 0 and 1.

        Raises:
            DataError: when a row holds an unknown label.
        """
        column = {name: k for k, name in enumerate(self.names)}
        targets_NK = np.zeros((len(rows), len(self.names)), np.uint8)
        for n, row in enumerate(rows):
            for name in row:
                targets_NK[n, column[name] if name in column else self.index(name)] = 1
        return targets_NK

    def decode(self, targets_NK: NDArray[np.generic]) -> list[tuple[str, ...]]:
        """The label names of each row of a multi-hot array of shape (N, K)."""
        return [tuple(self.names[k] for k in np.flatnonzero(row)) for row in targets_NK]
