"""Command line of the stages: starting points, overrides, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import write_config

from canopy.cli.exit_status import run_job
from canopy.cli.help import sections
from canopy.cli.options import parse
from canopy.config import AUGMENT_PRESETS, AugmentConfig, Experiment, derive, fingerprint
from canopy.config.experiment import texts_of
from canopy.config.presets import PRESETS, amazon, demo, planet32
from canopy.errors import SECRET_OPTION, ConfigError, InputError
from canopy.storage.run_dir import RunDir


def test_no_arguments_mean_the_demo() -> None:
    request = parse([], "")
    assert request.config == demo()
    assert request.run_dir.root.endswith(f"runs/demo-{fingerprint(demo())[:8]}")


def test_overrides_are_dotted_and_validated() -> None:
    request = parse(["--variants.1.optim.lr", "0.5", "--data.generate.rows=80", "--run-dir", "r"], "")
    assert request.config.variants[1].optim.lr == 0.5
    assert request.config.data.generate.rows == 80
    assert request.run_dir.root == str(Path("r").absolute())


def test_places_do_not_change_the_default_directory() -> None:
    assert parse(["--variants.0.scale.workers", "2"], "").run_dir == parse([], "").run_dir
    assert parse(["--variants.0.seed", "5"], "").run_dir != parse([], "").run_dir


def test_a_config_file_is_a_starting_point(tiny: Experiment, tmp_path: Path) -> None:
    file = write_config(tiny, tmp_path / "c.yaml")
    assert parse(["--config", str(file)], "").config == tiny
    assert parse(["--config", str(file), "--folds", "3"], "").config.folds == 3


def test_a_config_file_may_hold_only_the_differences_from_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("preset: planet32\ndata: {val_fraction: 0.1}\nsweep: {trials: 0}\n")
    config, base = parse(["--config", str(file)], "").config, planet32()
    assert config.data == derive(base.data, val_fraction=0.1)
    assert config.sweep == derive(base.sweep, trials=0)
    assert config.variants == base.variants
    file.write_text("preset: planet32\nvariants: [{name: mine, augment: enhanced}]\n")
    config = parse(["--config", str(file)], "").config
    assert [variant.name for variant in config.variants] == ["mine"]  # lists replace
    assert config.variants[0].augment == AUGMENT_PRESETS["enhanced"]
    assert config.data == base.data


def test_an_augmentation_is_chosen_by_name_for_all_variants() -> None:
    base, config = amazon(), parse(["--preset", "amazon", "--augment", "flips"], "").config
    assert {variant.augment for variant in config.variants} == {AugmentConfig(crop=224, place="device")}
    own = {variant.name: variant.augment for variant in base.variants}
    assert derive(config, variants=[derive(v, augment=own[v.name]) for v in config.variants]) == base


def test_an_existing_run_brings_its_own_config(tiny: Experiment, tmp_path: Path) -> None:
    RunDir(str(tmp_path)).store_config(tiny)
    assert parse(["--run-dir", str(tmp_path)], "").config == tiny
    assert parse(["--run-dir", str(tmp_path), "--preset", "demo"], "").config == demo()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--preset", "plannet32"], "known preset. Got: plannet32. Nearest: planet32, planet32-long, "),
        (
            ["--config", "absent.yaml"],
            "--config must name a file that exists. Got: absent.yaml. Correct the path, or use --pre",
        ),
        (["--config", "."], "--config must name a file that exists. Got: ."),
        (["--preset", "demo", "--config", "c.yaml"], "must not be given together"),
        (["--data.rot", "x"], "--data.root"),
        (["--data.val-fraction", "1.5"], "val_fraction"),
        (["--folds", "many"], "folds"),
        (["--preset", "amazon", "--augment", "crops"], "crop_padding must be 0 when augment.crop is set"),
    ],
)
def test_bad_options_end_with_two_and_no_traceback(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job(lambda argv: parse(argv, ""), arguments) == 2
    output = capsys.readouterr()
    assert text in output.err
    assert "Traceback" not in output.err + output.out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["loss.gamma", "-1"],
            "0.loss.gamma in the command line must be greater than or equal to 0. Got: -1",
        ),
        (["loss.alpha", "1.5"], "0.loss.alpha in the command line must lie in [0, 1]. Got: 1.5. It is"),
        (["optim.lr", "nan"], "0.optim.lr in the command line must be a finite number. Got: nan."),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_rule_broken_in_an_option_is_reported_in_one_line(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job(lambda argv: parse(argv, ""), [f"--variants.0.{arguments[0]}", arguments[1]]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: variants.{text}"), error
    assert error.count("\n") == 1


def test_a_rule_broken_in_a_config_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("variants: [{name: a, optim: {epochs: 0}}]\n")
    with pytest.raises(
        ConfigError, match=r"variants\.0\.optim\.epochs in .*greater than or equal to 1.*Got: 0"
    ):
        parse(["--config", str(file)], "")


def test_an_unknown_augmentation_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("variants: [{name: a, augment: strong}]\n")
    with pytest.raises(ConfigError, match=r"variants\.0\.augment .* Got: 'strong'\. Known: none, flips, "):
        parse(["--config", str(file)], "")


def test_a_rule_across_fields_gives_all_four_parts_once(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("variants: [{name: a, augment: {crop: 80}}]\n")
    with pytest.raises(ConfigError) as caught:
        parse(["--config", str(file)], "")
    assert str(caught.value) == (
        f"the experiment in {file}: variant a: augment.crop must be at most data.image_size. "
        "Got: 80 and 64. Change one of them."
    )


def test_a_submitted_job_needs_absolute_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    for arguments in ([], ["--run-dir", "runs/x"], ["--run-dir", "/x", "--data.root", "data"]):
        with pytest.raises(ConfigError, match="absolute or a URI in a submitted job"):
            parse(arguments, "")
    assert parse(["--run-dir", "file:///nowhere/x"], "").run_dir.root == "file:///nowhere/x"


def test_presets_carry_their_names() -> None:
    assert all(make().preset == name for name, make in PRESETS.items())


def test_a_misspelt_option_does_not_repeat_a_secret() -> None:
    with pytest.raises(InputError, match=r"--tracking\.mlflow must not hold credentials") as error:
        parse(["--tracking.mlflow", "https://user:hush@mlflow.example/"], "")
    assert "hush" not in str(error.value)


def test_no_option_has_the_name_of_a_secret() -> None:
    names = [f"--{name}".replace("_", "-") for name, _ in texts_of(demo(), "")]
    names += [
        f"--{name}".replace("_", "-") for section in sections().values() for name in section.model_fields
    ]
    assert len(names) > 100
    assert not [name for name in names if SECRET_OPTION.fullmatch(name)]


def test_levels_below_zero_can_be_given() -> None:
    for arguments in (["--data.sensor.black", "-25.5"], ["--data.sensor.black=-25.5"]):
        sensor = parse([*arguments, "--data.sensor.white", "0.5"], "").config.data.sensor
        assert (sensor.black, sensor.white) == (-25.5, 0.5)
    assert fingerprint(parse(["--data.sensor.black", "0.0"], "").config) == fingerprint(demo())


@pytest.mark.parametrize("text", ["data: [hush", "password: 'hush", "a: hush: x", "\thush"])
def test_a_broken_config_file_is_named_without_its_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(
        ConfigError, match=r"--config must be YAML\. Got: \S*c\.yaml: .* \(line \d, column \d"
    ) as error:
        parse(["--config", str(tmp_path / "c.yaml")], "")
    assert "hush" not in str(error.value)


def test_keys_in_the_run_directory_are_refused_by_the_name_of_the_option() -> None:
    with pytest.raises(InputError, match="--run-dir must not hold credentials") as error:
        parse(["--run-dir", "s3://key:hush@bucket/run"], "")
    assert "hush" not in str(error.value)
