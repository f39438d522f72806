"""The closing table."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from canopy.report.terminal_tables import closing_table, further_table


def printed(summary: dict[str, Any], width: int, make: Callable[..., Any] = closing_table) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(make(summary))
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


def test_further_figures_are_one_line_each(demo: dict[str, Any]) -> None:
    lines = [line for line in printed(demo["summary"], 80, further_table) if line.count(".") > 3]
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert [line.split()[0] for line in lines] == [
        "resnet-cbam-focal",
        "efficientnet-focal",
        "resnet-bce",
        "Ensemble",
    ]
    scores = demo["summary"]["ensemble"]
    half = scores["at_half"]
    expected = [
        f"{v:.3f}" for v in (scores["samples_f2"], *map(half.get, ("macro_f1", "micro_f1", "samples_f2")))
    ]
    expected += [f"{scores[key]:.4f}" for key in ("ranking_loss", "calibration_error")]
    assert lines[-1].split()[1:] == [text.removeprefix("0") for text in expected]
    demo["summary"]["ensemble"]["at_half"] = {}
    assert printed(demo["summary"], 80, further_table)[-2].split()[2:5] == ["–", "–", "–"]
