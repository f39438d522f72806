"""The console: one line per event, whatever the data holds."""

from __future__ import annotations

import pickle
import time

import pytest

from canopy.runtime.console import Console


def test_data_cannot_forge_lines_or_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    Console().say(
        "prepare", "skipped a\n   0:01  train    done\x1b[2J\r.jpg at s3://k:planted@b/x [bold]x[/bold]"
    )
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert line.endswith(r"skipped a\n   0:01  train    done\x1b[2J\r.jpg at s3://b/x [bold]x[/bold]" + "\n")


def test_a_count_prints_its_end_and_little_else(capsys: pytest.CaptureFixture[str]) -> None:
    console, since = Console(), time.monotonic()
    for done in range(1, 101):
        console.count("prepare", "images", done, 100, since)
    assert capsys.readouterr().out.splitlines()[0].split("  ")[-1].startswith("images 100 of 100 (")
    console.count("prepare", "chips", 25, 100, since - 10.0, every_s=5.0)
    assert "chips 25 of 100" in (line := capsys.readouterr().out)
    assert line.rstrip().endswith("/s, 0:30 left)")


def test_a_copy_is_a_new_console() -> None:
    console = Console()
    assert pickle.loads(pickle.dumps(console)).start > console.start
