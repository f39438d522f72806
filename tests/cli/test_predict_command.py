"""Options of ``predict``: images or scenes, each with its own."""

from __future__ import annotations

import pytest

from jobs import predict


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "--images and --scene must be given one without the other. Got: neither"),
        (
            ["--images", "a", "--scene", "b"],
            "--images and --scene must be given one without the other. Got: both",
        ),
        (["--images", "a", "--overlap", "0.25"], "--overlap must not be given with --images"),
        (["--scene", "a", "--max-bad-fraction", "0.5"], "--max-bad-fraction must not be given with --scene"),
    ],
)
def test_options_of_the_other_kind_are_refused(
    options: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main(["--model", "none", "--out", "out", *options]) == 2
    assert problem in capsys.readouterr().err
