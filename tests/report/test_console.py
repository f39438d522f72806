"""The closing table."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from canopy.report.console import closing_table


def printed(summary: dict[str, Any], width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(closing_table(summary))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100])
def test_every_model_is_one_line_with_its_intervals(demo: dict[str, Any], width: int) -> None:
    lines = printed(demo["summary"], width)
    assert max(len(line.rstrip()) for line in lines) <= width
    first = [line.split()[0] for line in lines if "." in line]
    assert first == ["resnet-cbam-focal", "efficientnet-focal", "resnet-bce", "Ensemble", "Best"]
    ensemble = demo["summary"]["ensemble"]
    low, high = ensemble["intervals"]["map"]
    (line,) = [line for line in lines if "Ensemble" in line]
    assert f"{ensemble['map']:.3f}  {low:.3f}–{high:.3f}".replace("0.", ".") in line


def test_missing_figures_and_odd_names(run_of: Callable[..., dict[str, Any]]) -> None:
    run = run_of(["[bold]name[/bold]"], ["one"], ceiling=False)
    run["summary"]["members"]["[bold]name[/bold]"] |= {"map": None, "intervals": {}}
    text = "\n".join(printed(run["summary"], 80))
    assert "[bold]name[/bold]" in text
    assert "–" in text
    assert "reachable" not in text
    assert "*" not in text
