"""The table of trainings and the line of an epoch."""

from __future__ import annotations

import io

from rich.console import Console as RichConsole

from canopy.train.monitor.progress_record import ProgressRecord
from canopy.train.monitor.progress_table import epoch_line, progress_table


def test_a_silent_training_is_marked() -> None:
    records = [
        ProgressRecord("a", "training", epochs=3, epoch=1, step=1, steps=2, time=1000.0),
        ProgressRecord("b", "done", epochs=3, epoch=3, time=0.0),
        ProgressRecord("[bold]c", "queued"),
    ]
    text = io.StringIO()
    RichConsole(file=text, width=120).print(progress_table(records, now=1190.0))
    head, first, second, third = text.getvalue().splitlines()
    assert "training, no sign for 3 min" in first
    assert "no sign" not in second
    assert "1/3" in first
    assert head.split()[0] == "training"
    assert third.split() == ["[bold]c", "queued"]


def test_the_line_of_an_epoch() -> None:
    record = ProgressRecord("v", "training", epochs=2, scored=1, train_loss=0.5, val_map=0.25)
    assert epoch_line(record) == "v epoch 1/2: loss 0.5000, val mAP 0.250"
