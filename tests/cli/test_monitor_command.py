"""``canopy monitor`` on the command line; what it writes is tested in ``tests/monitoring``."""

from __future__ import annotations

import pytest

from canopy.cli.main import main


def test_the_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor", "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("--out", "--session", "--start", "--port", "--grafana-port"):
        assert option in text
