from __future__ import annotations

import pytest

from canopy.cli import run_job
from canopy.cli.option_types import parse_space, space_text
from canopy.cli.options import parse
from canopy.config import SearchSpace


@pytest.mark.parametrize(
    "text",
    ["recipe", "{optim.lr: {low: 1e-4, high: 0.01, log: true}, loss.name: [bce, focal], loss.alpha: [null]}"],
)
def test_a_space_is_one_word(text: str) -> None:
    config = parse(["--sweep.space", text], "").config
    assert config.sweep.space == SearchSpace(parse_space(text))
    assert SearchSpace(parse_space(space_text(config.sweep.space))) == config.sweep.space


def test_variants_have_spaces_of_their_own() -> None:
    config = parse(["--sweep.variants", "resnet", "focal", "--variants.0.swept", "loss.gamma"], "").config
    assert config.sweep.variants == {"resnet": SearchSpace("focal")}
    assert config.variants[0].swept == ("loss.gamma",)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--sweep.space", "recipi"],
            "must be a known name or a mapping of fields. Got: recipi. Nearest: recipe",
        ),
        (["--sweep.space", "{a"], "must be a known name or a mapping of fields. Got: {a"),
        (["--sweep.space", "{optim.lrr: [1]}"], "optim.lrr must be a field of a variant. Got: optim.lrr"),
        (
            ["--sweep.space", "{optim.lr: {low: 2, high: 1}}"],
            "optim.lr must be a range whose low is below its high",
        ),
        (
            ["--sweep.variants", "nobody", "focal"],
            "sweep.variants.nobody must name a variant. Got: 'nobody'",
        ),
        (
            ["--sweep.sampler", "grid"],
            "loss.gamma must have a step or be a list of choices for the sampler grid",
        ),
        (["--variants.0.swept", "optim.lr"], "variant resnet: swept must name fields of its search space"),
        (["--variants.0.loss.name", "bce"], "variant resnet: swept needs loss.name focal to take loss.gamma"),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else "",
)
def test_a_wrong_space_ends_with_two_and_one_line(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job(lambda argv: parse(argv, ""), arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert text in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("word", ["True", "true", "False", "false"])
def test_both_forms_of_a_boolean(word: str) -> None:
    config = parse(["--variants.0.model.pretrained", word, "--variants.0.swept", word], "").config
    assert config.variants[0].model.pretrained == (word in ("True", "true"))
    assert config.variants[0].swept == (word in ("True", "true"))


def test_any_other_boolean_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--variants.0.model.pretrained", "yes"], "")
    assert ended.value.code == 2
    assert "True" in capsys.readouterr().err
