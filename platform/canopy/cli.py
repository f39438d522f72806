"""The command line of every job: a preset or a config file, dotted overrides on top, a run directory.

A misspelt option is refused with the nearest ones; whatever the user got wrong ends with one message on
standard error and exit status 2, whatever failed while running with 1, both without a traceback.
"""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
import yaml
from pydantic import ValidationError

from canopy.config import AUGMENT_PRESETS, AugmentName, Experiment, derive, fingerprint
from canopy.config.presets import PRESETS, preset
from canopy.config.validation import config_error
from canopy.errors import SIGTERM_STATUS, CanopyError, ConfigError, Stopped
from canopy.runtime.cluster import is_submitted
from canopy.runtime.logging import configure_logging
from canopy.storage import files
from canopy.storage.run_dir import RunDir

DEFAULT_PRESET = "demo"
PIPE_STATUS = 141
"""As the shell reports a program that SIGPIPE ended."""


@dataclass(frozen=True)
class Options:
    """What every job takes beside the experiment itself."""

    experiment: Annotated[Experiment, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff]
    config: str | None = None
    """Start from this YAML file instead (the form of RUN_DIR/config.yaml); with ``preset: NAME`` in it, it
    need only say what differs."""
    run_dir: str | None = None
    """Directory or URI of the run; default: runs/PRESET-HASH, so that the same command goes on."""
    augment: AugmentName | None = None
    """Give every variant the augmentation of this name, in place of its own (its ``crop`` and ``place``
    stay); the contact sheet in prepare/ shows what it does."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print what would be trained and end; reads no data and starts nothing."""


@dataclass(frozen=True)
class Request:
    """A parsed command line."""

    config: Experiment
    run: RunDir
    dry_run: bool = False


def parse(argv: Sequence[str], description: str) -> Request:
    """Read the command line of a job.

    Raises:
        ConfigError: when an option is unknown or wrong.
        SystemExit: for ``--help`` (0) and for what tyro itself refuses (2).
    """
    given = {name: peek(argv, name) for name in ("preset", "config", "run-dir")}
    default = starting_point(given["preset"], given["config"], given["run-dir"])
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            options = tyro.cli(
                Options,
                args=list(argv),
                default=Options(default, given["config"], given["run-dir"]),
                description=description,
            )
        config = augmented(options.experiment, options.augment)
    except ValidationError as error:
        raise config_error("the command line", error) from None
    except SystemExit as refusal:
        if (broken := broken_section(refusal)) is not None:
            raise config_error("the command line", *broken) from None
        sys.stderr.write(told.getvalue())
        raise
    return Request(config, run_dir(options.run_dir, config), options.dry_run)


def augmented(config: Experiment, name: AugmentName | None) -> Experiment:
    """``config`` with the augmentation ``name`` for every variant; None leaves each its own.

    Raises:
        pydantic.ValidationError: when it does not go with a variant's crop.
    """
    if name is None:
        return config
    new = [
        derive(AUGMENT_PRESETS[name], crop=variant.augment.crop, place=variant.augment.place)
        for variant in config.variants
    ]
    variants = [derive(v, augment=augment) for v, augment in zip(config.variants, new, strict=True)]
    return derive(config, variants=tuple(variants))


def broken_section(refusal: BaseException) -> tuple[ValidationError, str] | None:
    """What pydantic said of a section, and its dotted name, where that is why tyro refuses.

    tyro tells of it in a box of eight lines, with a link and without a remedy.
    """
    name, error = "", refusal.__context__
    while error is not None and not isinstance(error, ValidationError):
        name = str(getattr(error, "arg", name))
        error = error.__context__
    return None if error is None else (error, name.removeprefix("experiment."))


def peek(argv: Sequence[str], name: str) -> str | None:
    """The value of ``--name`` on the command line, which decides what the other options start from."""
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
    """An experiment from YAML; what it leaves out is that of the preset that it names, if it names one.

    Raises:
        ConfigError: when it is missing, not YAML, or breaks a rule of the config.
    """
    if not files.exists(path):
        raise ConfigError("--config", "must be a YAML file", path, f"Or use --preset: {', '.join(PRESETS)}.")
    try:
        content = yaml.safe_load(files.read_bytes(path))
        named = isinstance(content, dict) and str(content.get("preset")) in PRESETS
        base = preset(content["preset"]).model_dump() if named else {}
        return Experiment.model_validate(laid_over(base, content))
    except yaml.YAMLError as error:
        raise ConfigError(path, "must be YAML", str(error), "Correct it.") from None
    except ValidationError as error:
        raise config_error(path, error) from None


def laid_over(base: object, content: object) -> object:
    """``content`` with what its sections leave out taken from ``base``; lists and values replace."""
    if not (isinstance(base, dict) and isinstance(content, dict)):
        return content
    return {**base, **{key: laid_over(base.get(key), value) for key, value in content.items()}}


def run_dir(given: str | None, config: Experiment) -> RunDir:
    """The run directory asked for, or the default one of this config.

    Raises:
        ConfigError: in a submitted job, for paths that lie in its temporary copy of the code.
    """
    if is_submitted():
        places = {"--run-dir": given, "--data.root": config.data.root}
        for option, value in places.items():
            optional = option == "--data.root" and value is None
            if not optional and (value is None or not (files.is_uri(value) or value.startswith("/"))):
                need = "must be absolute or a URI in a submitted job, which runs in a temporary copy"
                remedy = f"Give {option} /shared/… or s3://…"
                raise ConfigError(option, need, value, remedy)
    root = given or f"runs/{config.preset}-{fingerprint(config)[:8]}"
    return RunDir(root if files.is_uri(root) else str(Path(root).expanduser().absolute()))


def run_job(job: Callable[[Sequence[str]], object], argv: Sequence[str] | None = None) -> int:
    """Run a job's body; returns its exit status and prints what the user has to know."""
    try:
        configure_logging("driver")
        job(sys.argv[1:] if argv is None else argv)
    except SystemExit as error:  # tyro's --help and its refusals, and SIGTERM
        if error.code == SIGTERM_STATUS:
            print("stopped; the same command goes on where it stopped", file=sys.stderr)
        return error.code if isinstance(error.code, int) else 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not is_output_closed():
            raise
        return PIPE_STATUS
    except Exception as error:
        known = canopy_error(error)
        if known is None:
            raise
        print(known if isinstance(known, Stopped) else f"error: {known}", file=sys.stderr)
        return known.exit_status
    return 0


def is_output_closed() -> bool:
    """Whether whoever read the standard output (head, less) has gone; what is printed then goes nowhere."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors are told of unasked
    closed = any(event & select.POLLERR for _, event in poll.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the last flush would fail, too
    return closed


def canopy_error(error: BaseException | None) -> CanopyError | None:
    """The error of ours behind one that came out of a Ray task, however deeply it is wrapped."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # an error may be its own cause's cause
        if isinstance(error, CanopyError):
            return error
        seen.add(id(error))
        error = getattr(error, "cause", None) or error.__cause__
    return None
