"""Help on one screen, a section in full, every option."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import pytest

from canopy.cli.help import COMMON, GENERAL, first_sentence, option_of, screen, sections, wanted_help
from canopy.cli.main import main
from canopy.config.presets import PRESETS

STAGES = list(COMMON)


def printed(*arguments: str) -> str:
    """Standard output of ``canopy ARGUMENTS``, which must succeed."""
    out = io.StringIO()
    with redirect_stdout(out):
        assert main(arguments) == 0
    return out.getvalue()


@pytest.mark.parametrize("command", STAGES)
@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_help_of_a_stage_fits_on_one_screen(command: str, preset: str) -> None:
    lines = screen(command, "Do it.", PRESETS[preset](), f"canopy {command}").splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("command", STAGES)
def test_every_common_option_exists_and_is_documented(command: str) -> None:
    config = PRESETS["demo"]()
    for name in (*GENERAL, *COMMON[command]):
        owner, field, _ = option_of(name, config)
        assert len(first_sentence(owner, field).split()) > 2, name


def test_the_commands_fit_on_one_screen() -> None:
    text = printed("--help")
    assert 24 <= len(text.splitlines()) <= 40
    assert all(f"  {name} " in text for name in (*STAGES, "predict", "status"))


@pytest.mark.parametrize("section", ["data", "data.sensor", "variants", "optim", "variants.0.optim", "fleet"])
def test_a_section_is_printed_in_full(section: str) -> None:
    text = printed("train", "--help", section)
    prefix = "variants.0.optim" if "optim" in section else section.replace("variants", "variants.0")
    kind = sections()[section.rpartition("variants.0.")[2]]
    for field, info in kind.model_fields.items():
        if (section, field) == ("data", "bands"):
            continue  # sections in a list that is empty here: a config file states them
        if not (isinstance(info.annotation, type) and info.annotation in sections().values()):
            assert f"--{prefix}.{field.replace('_', '-')} " in text


def test_every_section_can_be_printed() -> None:
    for section in sections():
        assert "--" in printed("pipeline", "--help", section)


def test_defaults_are_those_of_the_preset() -> None:
    assert "(default: 256)" in printed("pipeline", "--preset", "amazon", "--help")
    assert "(default: 256)" in printed("prepare", "--preset=amazon", "--help", "data")


def test_every_option_is_listed_on_request() -> None:
    text = printed("pipeline", "--help-all")
    for option in ("--variants.2.loss.gamma ", "--data.sensor.white ", "--fleet.max-failures ", "--dry-run"):
        assert option in text


def test_an_unknown_section_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help", "optm"]) == 2
    assert capsys.readouterr().err.endswith("Got: optm. Nearest: optim.\n")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--folds", "3"], None),
        (["--help"], ""),
        (["-h", "--folds", "3"], ""),
        (["--help", "data"], "data"),
        (["--help=data"], "data"),
        (["--help-all"], "all"),
    ],
)
def test_the_wanted_help_is_found(arguments: list[str], wanted: str | None) -> None:
    assert wanted_help(arguments) == wanted
