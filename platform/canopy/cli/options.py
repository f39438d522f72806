"""Command line of the stages: a preset or a config file, dotted overrides on top, a run directory.

tyro parses; a misspelt option is refused with the most similar names.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import tyro
from pydantic import ValidationError

from canopy.cli.option_types import REGISTRY
from canopy.config import AUGMENT_PRESETS, AugmentName, Experiment, derive, fingerprint
from canopy.config.presets import PRESETS, preset
from canopy.config.validation_errors import config_error
from canopy.errors import ConfigError, refuse_secret_arguments, without_credentials
from canopy.runtime.cluster import require_shared_path
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.storage.yaml_files import read_yaml

DEFAULT_PRESET = "demo"
COMMAND_LINE = "the command line"
OptionsT = TypeVar("OptionsT")


@dataclass(frozen=True)
class Options:
    """Options of every stage."""

    experiment: Annotated[Experiment, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff]
    config: str | None = None
    """YAML file to start from, in the form of RUN_DIR/config.yaml; with ``preset: NAME`` in it, it needs only
    the differences from that preset."""
    run_dir: str | None = None
    """Directory or URI of the run; default: runs/PRESET-HASH, the same for the same config."""
    augment: AugmentName | None = None
    """Augmentation of every variant, by name; replaces all of ``augment`` except ``crop`` and ``place``."""
    max_cost: float | None = None
    """Largest cost of the run, the same as --budget.max-cost."""
    max_node_hours: float | None = None
    """Largest number of node-hours of the run, the same as --budget.max-node-hours."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print what would be trained and end; reads no data and starts nothing."""


@dataclass(frozen=True)
class Request:
    """A parsed command line.

    Args:
        config: the experiment.
        run_dir: the run directory.
        dry_run: whether to print the plan only.
    """

    config: Experiment
    run_dir: RunDir
    dry_run: bool = False


def parse(argv: Sequence[str], description: str, prog: str | None = None) -> Request:
    """Read the command line of a stage.

    Args:
        argv: arguments.
        description: description of the command in the help.
        prog: name of the command; None takes the name of the process.

    Raises:
        ConfigError: when an option is wrong.
        InputError: when an argument holds credentials.
        SystemExit: for ``--help`` (status 0) and for what tyro refuses (2).
    """
    refuse_secret_arguments(argv)
    given = {name: peek(argv, name) for name in ("preset", "config", "run-dir")}
    default = starting_point(given["preset"], given["config"], given["run-dir"])
    start = Options(default, given["config"], given["run-dir"])
    options = read_options(Options, argv, description, prog, start)
    try:
        config = limited(augmented(options.experiment, options.augment), options)
    except ValidationError as error:
        raise config_error(COMMAND_LINE, error) from None
    return Request(config, run_dir(options.run_dir, config), options.dry_run)


def read_options(
    kind: type[OptionsT],
    argv: Sequence[str],
    description: str,
    prog: str | None = None,
    default: OptionsT | None = None,
) -> OptionsT:
    """Options of the dataclass ``kind``, read by tyro.

    Args:
        kind: a dataclass, its fields the options.
        argv: arguments.
        description: description of the command in the help.
        prog: name of the command; None takes the name of the process.
        default: values of options that are not given; None takes the defaults of ``kind``.

    Raises:
        ConfigError: when an option breaks a rule of the config.
        InputError: when an argument holds credentials.
        SystemExit: for ``--help`` (status 0) and for what tyro refuses (2).
    """
    refuse_secret_arguments(argv)
    refused = io.StringIO()
    start = tyro.MISSING_NONPROP if default is None else default
    try:
        with redirect_stderr(refused):
            return tyro.cli(
                kind, prog=prog, args=list(argv), description=description, default=start, registry=REGISTRY
            )
    except ValidationError as error:
        raise config_error(COMMAND_LINE, error) from None
    except SystemExit as refusal:
        if (broken := broken_section(refusal)) is not None:
            raise config_error(COMMAND_LINE, *broken) from None
        sys.stderr.write(without_credentials(refused.getvalue()))  # tyro repeats what it refuses
        raise


def augmented(config: Experiment, name: AugmentName | None) -> Experiment:
    """``config`` with the augmentation ``name`` for every variant; None changes nothing.

    Raises:
        pydantic.ValidationError: when it does not fit a variant's crop.
    """
    if name is None:
        return config
    variants = [
        derive(
            variant,
            augment=derive(AUGMENT_PRESETS[name], crop=variant.augment.crop, place=variant.augment.place),
        )
        for variant in config.variants
    ]
    return derive(config, variants=tuple(variants))


def limited(config: Experiment, options: Options) -> Experiment:
    """``config`` with the limits that were given as options of their own.

    Raises:
        pydantic.ValidationError: when one is not above 0.
    """
    given = {"max_cost": options.max_cost, "max_node_hours": options.max_node_hours}
    given = {name: limit for name, limit in given.items() if limit is not None}
    if not given:
        return config
    return derive(config, budget={**config.budget.model_dump(), **given})


def broken_section(refusal: BaseException) -> tuple[ValidationError, str] | None:
    """The validation error behind a refusal of tyro, and the dotted name of its section; None without one.

    tyro itself would print it as a box of eight lines, without a remedy.
    """
    name, error = "", refusal.__context__
    while error is not None and not isinstance(error, ValidationError):
        name = str(getattr(error, "arg", name))
        error = error.__context__
    return None if error is None else (error, name.removeprefix("experiment."))


def peek(argv: Sequence[str], name: str) -> str | None:
    """The value of ``--name`` in ``argv``, which decides the defaults of the other options."""
    flags = (f"--{name}", f"--{name.replace('-', '_')}")
    for n, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        if flag in flags:
            return value if equals else (argv[n + 1] if n + 1 < len(argv) else None)
    return None


def starting_point(preset_name: str | None, config_file: str | None, run_root: str | None) -> Experiment:
    """The experiment that overrides are applied to.

    Raises:
        ConfigError: when the preset or the file cannot be used.
    """
    if preset_name is not None and config_file is not None:
        both = f"{preset_name} and {config_file}"
        raise ConfigError("--preset and --config", "must not be given together", both, "Drop one of them.")
    if config_file is not None:
        return load_config_file(config_file)
    if preset_name is None and run_root is not None and files.exists(files.join(run_root, "config.yaml")):
        return RunDir(run_root).load_config()
    return preset(preset_name or DEFAULT_PRESET)


def load_config_file(path: str) -> Experiment:
    """An experiment from YAML; fields that it leaves out come from the preset that it names, if any.

    Raises:
        ConfigError: when the file is missing, is not YAML, or breaks a rule of the config.
    """
    if not files.exists(path) or files.is_dir(path):
        remedy = f"Correct the path, or use --preset: {', '.join(PRESETS)}."
        raise ConfigError("--config", "must name a file that exists", path, remedy)
    content = read_yaml("--config", path)
    try:
        base: dict[str, Any] = {}
        if isinstance(content, dict) and str(content.get("preset")) in PRESETS:
            base = preset(content["preset"]).model_dump()
        return Experiment.model_validate(merged(base, content))
    except ValidationError as error:
        raise config_error(path, error) from None


def merged(base: object, content: object) -> object:
    """``content``, its sections completed with fields of ``base``; lists and values replace."""
    if not (isinstance(base, dict) and isinstance(content, dict)):
        return content
    return {**base, **{key: merged(base.get(key), value) for key, value in content.items()}}


def run_dir(given: str | None, config: Experiment) -> RunDir:
    """The run directory ``given``, or the default one of ``config``.

    Raises:
        ConfigError: in a submitted job, for paths inside its temporary copy of the code.
    """
    require_shared_path("--run-dir", given)
    if config.data.root is not None:
        require_shared_path("--data.root", config.data.root)
    root = given or f"runs/{config.preset}-{fingerprint(config)[:8]}"
    return RunDir(files.absolute(root))
