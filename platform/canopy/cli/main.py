"""Entry point of the ``canopy`` command."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence

import canopy
from canopy.cli.commands import COMMANDS
from canopy.cli.exit_status import run_job
from canopy.errors import ConfigError, InputError, nearest

WIDTH = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command and return its exit status; ``argv`` None takes the arguments of the process."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        print(overview(), file=sys.stderr)
        return InputError.exit_status
    name, rest = arguments[0], arguments[1:]
    if name in COMMANDS:
        return COMMANDS[name](rest, prog=f"canopy {name}")
    return run_job(run_without_command, arguments)


def run_without_command(argv: Sequence[str]) -> None:
    """Answer ``--help`` and ``--version``.

    Raises:
        ConfigError: for anything else, with the nearest commands.
    """
    if argv[0] in {"-h", "--help", "help"}:
        print(overview())
    elif argv[0] in {"-V", "--version"}:
        print(f"canopy {canopy.__version__}")
    else:
        need = "must be followed by a command or --help"
        raise ConfigError("canopy", need, argv[0], nearest(argv[0], COMMANDS))


def overview() -> str:
    """The commands, on one screen."""
    lines = [
        "usage: canopy COMMAND [OPTIONS]",
        "",
        "From labelled aerial images to one tuned multi-label ensemble, on Ray.",
        "",
        "commands:",
    ]
    for command in COMMANDS.values():
        first, *more = textwrap.wrap(command.summary, WIDTH - 13)
        lines += [f"  {command.name:<9}  {first}", *(f"{'':<13}{line}" for line in more)]
    lines += [
        "",
        "  canopy COMMAND --help          the commonest options of a command, and its sections",
        "  canopy COMMAND --help SECTION  every option of a section, such as data or variants",
        "  canopy COMMAND --help-all      every option",
        "  canopy --version",
        "",
        "Stages share a run directory (default runs/PRESET-HASH) and skip what is done for the same",
        "inputs: the same command continues where the last one ended. Options of a section are dotted:",
        "--data.root DIR, --sweep.trials 12.",
        "",
        "examples:",
        "  canopy pipeline                                    built-in chips, three variants, minutes",
        "  canopy pipeline --preset planet32 --data.root DIR  Kaggle's Planet chips at 32 px",
        "  canopy status runs/demo-1a2b3c4d                   progress of a run, from another terminal",
        "  canopy predict --model runs/demo-1a2b3c4d --images DIR --out out.parquet",
        "  canopy serve --model runs/demo-1a2b3c4d            an HTTP service with a web page",
        "  canopy export runs/demo-1a2b3c4d --to DIR          ONNX, a torch program, a Hugging Face folder",
    ]
    return "\n".join(lines)
