"""A small data set in Kaggle's layout, for tests of what a source says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from canopy.config import DataConfig


def kaggle(root: Path, table: str, **changes: Any) -> DataConfig:
    """A data set of empty image files beside ``table``; the names a, b, c have one."""
    (root / "train-jpg").mkdir(exist_ok=True)
    for name in "abc":
        (root / "train-jpg" / f"{name}.jpg").write_bytes(b"x" * 10)
    (root / "train_v2.csv").write_bytes(table.encode())
    return DataConfig(source="kaggle", root=str(root), **changes)


TABLE = "image_name,tags\na,clear primary\nb,cloudy\nc,primary water clear\n"
