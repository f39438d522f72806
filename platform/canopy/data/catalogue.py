"""The catalogue: the images of a data set with their labels, splits and folds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from canopy.errors import DataError
from canopy.labels import LabelSet
from canopy.storage import files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("fold", pa.int8(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
    ]
)
LABELS_KEY = "canopy.labels"


@dataclass(frozen=True, eq=False)
class Catalogue:
    """N images; row n is also the position of the decoded image in the chip cache.

    Attributes:
        ids: unique names, length N.
        uris: path or URI of each image file.
        targets_NK: multi-hot, uint8, shape (N, K).
        split: "train", "val" or "test", shape (N,).
        fold: int8, shape (N,). Training rows: number of the fold that holds them out, from 0. Validation
            rows: 0 for selection, 1 for fitting the ensemble where there are no out-of-fold probabilities.
            Test rows: -1.
        group: name of the group that stays in one split (near-duplicates, a scene), shape (N,).
        labels: names of the columns of ``targets_NK``.
    """

    ids: list[str]
    uris: list[str]
    targets_NK: NDArray[np.uint8]
    split: NDArray[np.str_]
    fold: NDArray[np.int8]
    group: NDArray[np.str_]
    labels: LabelSet

    def __post_init__(self) -> None:
        n = len(self.ids)
        assert len(self.uris) == len(self.split) == len(self.fold) == len(self.group) == n
        assert self.targets_NK.shape == (n, len(self.labels))

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, split: Split, fold: int | None = None, not_fold: int | None = None) -> NDArray[np.int64]:
        """Row numbers (n,), ascending, of a split: all, one fold's, or all but one fold's."""
        keep = self.split == split
        if fold is not None:
            keep &= self.fold == fold
        if not_fold is not None:
            keep &= self.fold != not_fold
        return np.flatnonzero(keep).astype(np.int64)

    def counts(self, rows: NDArray[np.int64]) -> dict[str, int]:
        """Positives per label among ``rows``."""
        totals = self.targets_NK[rows].sum(0, dtype=np.int64)
        return dict(zip(self.labels.names, totals.tolist(), strict=True))

    @property
    def folds(self) -> int:
        """Number of folds of the training rows."""
        return int(self.fold[self.split == "train"].max(initial=0)) + 1

    def digest(self) -> str:
        """64 hex digits over ids, labels, splits and folds, but not over the paths of the files."""
        rows = [self.ids, self.labels.decode(self.targets_NK), self.split.tolist(), self.fold.tolist()]
        return hashlib.sha256(json.dumps([self.labels.names, *rows]).encode()).hexdigest()

    def write(self, path: str) -> None:
        """Write as Parquet, with the ordered label names in the schema's metadata.

        Raises:
            StorageError: when the store cannot be written.
        """
        columns = [
            pa.array(self.ids, pa.string()),
            pa.array(self.uris, pa.string()),
            _name_lists(self.targets_NK, self.labels),
            pa.array(self.split.tolist(), pa.string()),
            pa.array(self.fold, pa.int8()),
            pa.array(self.group.tolist(), pa.string()),
        ]
        schema = SCHEMA.with_metadata({LABELS_KEY: json.dumps(self.labels.names)})
        files.write_table(path, pa.table(columns, schema=schema))

    @classmethod
    def read(cls, path: str) -> Catalogue:
        """Read a catalogue that :meth:`write` or another program wrote in this form.

        Raises:
            FileNotFoundError: when there is no such file.
            DataError: when columns are missing, an id is repeated, or a split or label is unknown.
        """
        table = files.read_table(path)
        absent = [name for name in SCHEMA.names if name not in table.column_names]
        if absent:
            need = f"must have the columns {', '.join(SCHEMA.names)}"
            raise DataError(path, need, ", ".join(table.column_names), f"Add {', '.join(absent)}.")
        column = {name: table.column(name).to_pylist() for name in SCHEMA.names}
        for name, values in column.items():
            if None in values:
                got = f"nothing in row {values.index(None) + 1}"
                raise DataError(path, f"must have a value in every row of {name}", got, "Fill it in.")
        refuse_duplicates(path, column["id"])
        for split in column["split"]:
            if split not in SPLITS:
                need = f"must have a split of {', '.join(SPLITS)} in every row"
                raise DataError(path, need, repr(split), "Correct the split column.")
        stored = files.metadata(table).get(LABELS_KEY)
        labels = LabelSet(tuple(json.loads(stored))) if stored else LabelSet.of(column["labels"])
        return cls(
            ids=column["id"],
            uris=column["uri"],
            targets_NK=labels.encode(column["labels"]),
            split=np.array(column["split"], np.str_),
            fold=np.array(column["fold"], np.int8),
            group=np.array(column["group"], np.str_),
            labels=labels,
        )


def _name_lists(targets_NK: NDArray[np.uint8], labels: LabelSet) -> pa.ListArray:
    """The label names of each row; as ``labels.decode``, without a Python object per row."""
    rows, columns = np.nonzero(targets_NK)
    offsets = np.searchsorted(rows, np.arange(len(targets_NK) + 1)).astype(np.int32)
    names = pa.array(labels.names, pa.string()).take(pa.array(columns))
    return pa.ListArray.from_arrays(offsets, names)


def refuse_duplicates(thing: str, ids: Sequence[str]) -> None:
    """Refuse repeated ids.

    Args:
        thing: name of the table in the error.
        ids: the ids in order.

    Raises:
        DataError: naming the first id that is repeated.
    """
    seen: dict[str, int] = {}
    for n, name in enumerate(ids):
        if name in seen:
            got = f"{name} in rows {seen[name] + 1} and {n + 1}"
            raise DataError(thing, "must name every image once", got, "Remove one of the two rows.")
        seen[name] = n
