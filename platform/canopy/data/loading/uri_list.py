"""Paths or URIs of many images, as an Arrow array that the processes of a node share without copying."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray


class UriList:
    """Paths or URIs by row.

    Each data task receives the URIs of the whole data set. A tuple of strings would be built again in every
    task, 0.15 s for a million; all tasks of a node share one Arrow array in the object store.

    Args:
        uris: paths or URIs, in the order of the rows.
    """

    def __init__(self, uris: Iterable[str]) -> None:
        self._uris = pa.array(uris, pa.large_string())

    def __len__(self) -> int:
        return len(self._uris)

    def at(self, rows_n: NDArray[Any]) -> list[str]:
        """The URIs of ``rows_n``, which may repeat."""
        found: list[str] = self._uris.take(pa.array(rows_n)).to_pylist()
        return found
