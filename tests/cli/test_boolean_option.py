"""Boolean options are written as in Python or as in YAML."""

from __future__ import annotations

import pytest

from canopy.cli.options import parse


@pytest.mark.parametrize("word", ["True", "true", "False", "false"])
def test_both_forms(word: str) -> None:
    config = parse(["--variants.0.model.pretrained", word, "--variants.0.swept", word], "").config
    assert config.variants[0].model.pretrained == (word in ("True", "true"))
    assert config.variants[0].swept == (word in ("True", "true"))


def test_anything_else_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--variants.0.model.pretrained", "yes"], "")
    assert ended.value.code == 2
    assert "True" in capsys.readouterr().err
