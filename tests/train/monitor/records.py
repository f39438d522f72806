"""Values that the tests of the monitor share."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole

from canopy.config import VariantConfig
from canopy.runtime.console import Console
from canopy.train.training_records import EpochRecord
from canopy.train.training_run import TrainingRun

EPOCH = EpochRecord(
    epoch=1,
    phase=1,
    train_loss=0.25,
    score=0.5,
    val_map=0.5,
    val_macro_f1=0.4,
    images_per_s=900.0,
    lr=0.001,
    seconds=3.0,
)


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self, monkeypatch: Any) -> None:
        self.now = 1000.0
        monkeypatch.setattr("canopy.train.monitor.progress_file.time.monotonic", lambda: self.now)


def training_in(folder: Path, name: str = "v") -> TrainingRun:
    return TrainingRun(VariantConfig(name=name), 0, 1, str(folder), "f" * 64, "c" * 64)


def console(terminal: bool) -> tuple[Console, io.StringIO]:
    """A console that writes to the returned text."""
    made, text = Console(), io.StringIO()
    made.rich = RichConsole(file=text, force_terminal=terminal, width=120, highlight=False, soft_wrap=True)
    return made, text
