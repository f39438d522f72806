"""The table of sub-commands, and the bodies of the stages', ``status`` and ``weights``.

``jobs/NAME.py`` runs the command of the same name.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from canopy.cli.chips_command import CHIPS, chips
from canopy.cli.exit_status import RESUMES, STARTS_OVER, run_job
from canopy.cli.help import screen, section_help, wanted_help
from canopy.cli.model_commands import EXPORT, SERVE, export, serve
from canopy.cli.monitor_command import MONITOR, monitor
from canopy.cli.options import parse, peek, read_options, starting_point
from canopy.cli.predict_command import PREDICT, predict
from canopy.cli.submit_command import SUBMIT, submit
from canopy.config import EnsembleConfig
from canopy.runtime.stage import Stage


@dataclass(frozen=True)
class Command:
    """A sub-command.

    Args:
        name: name of the command on the command line.
        summary: one line for the help.
        body: function of the arguments and of the program name shown in the help.
        after_stop: effect of running the command again after a signal ended it, as a phrase.
    """

    name: str
    summary: str
    body: Callable[[Sequence[str], str], None]
    after_stop: str = RESUMES

    def __call__(self, argv: Sequence[str] | None = None, prog: str | None = None) -> int:
        """Run the command with ``argv`` (None: those of the process); returns the exit status."""
        called = prog or f"jobs/{self.name}.py"
        return run_job(lambda args: self.body(args, called), argv, self.after_stop)


@dataclass(frozen=True)
class FileOptions:
    """Options of ``ensemble`` over predictions files instead of a run directory."""

    fitting: tuple[str, ...]
    """NAME=FILE of each member: rows with targets that neither trained a model nor selected an epoch."""
    out: str
    """Directory or URI for ensemble.json, predictions.parquet, decisions.csv and per_class.csv."""
    test: tuple[str, ...] = ()
    """NAME=FILE of each member: rows to predict and, where they have targets, to score."""
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)


@dataclass(frozen=True)
class StatusOptions:
    """Options of ``status``."""

    run_dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Directory or URI of the run."""
    watch: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Repeat until interrupted."""
    every: float = 5.0
    """Seconds between two displays."""


@dataclass(frozen=True)
class WeightsOptions:
    """Options of ``weights``."""

    fetch: Annotated[str | None, tyro.conf.arg(metavar="SOURCE")] = None
    """Bring weights to this machine and check them: a timm name (its default weights), hf-hub:NAME, or the
    URI of a file."""


def run_on_run_dir(name: str, stages: Sequence[Stage], argv: Sequence[str], prog: str) -> None:
    """The body of a stage's command, or of ``pipeline``.

    Raises:
        CanopyError: see :func:`canopy.pipeline.run_stages`.
    """
    summary = COMMANDS[name].summary
    help_on = wanted_help(argv)
    if help_on is not None:
        print_help(help_on, name, argv, prog)
        return
    request = parse(argv, summary, prog)
    from canopy.pipeline import run_stages

    run_stages(request.config, request.run_dir, stages, request.dry_run)


def print_help(help_on: str, name: str, argv: Sequence[str], prog: str) -> None:
    """Print the help of a stage's command.

    Args:
        help_on: result of :func:`canopy.cli.help.wanted_help`.
        name: name of the command.
        argv: arguments; preset, config file and run directory in them decide the defaults shown.
        prog: the command as the user types it.

    Raises:
        ConfigError: when ``help_on`` is no section.
        SystemExit: from tyro, with status 0.
    """
    summary = COMMANDS[name].summary
    if help_on == "all":
        starting = [word for word in argv if word not in {"-h", "--help", "--help-all"}]
        parse([*starting, "--help"], summary, prog)
    config = starting_point(*(peek(argv, option) for option in ("preset", "config", "run-dir")))
    if help_on:
        section_help(help_on, config, prog)
    else:
        print(screen(name, f"{summary}.", config, prog))


def ensemble(argv: Sequence[str], prog: str) -> None:
    """The ensemble stage, or an ensemble of files when ``--fitting`` is given.

    Raises:
        CanopyError: see :func:`canopy.pipeline.run_stages` and
            :func:`canopy.ensemble.from_files.run_ensemble`.
    """
    if not any(argument.partition("=")[0] == "--fitting" for argument in argv):
        run_on_run_dir("ensemble", [Stage.ENSEMBLE], argv, prog)
        return
    options = read_options(FileOptions, argv, ENSEMBLE, prog)
    from canopy.ensemble.from_files import members_of, reads_in_shards, run_ensemble
    from canopy.ensemble.scores import summary_lines
    from canopy.runtime.cluster import connect

    fitting, tests = members_of(options.fitting), members_of(options.test) or None
    sharded = reads_in_shards(fitting, options.ensemble)
    if sharded:
        connect()
    fitted = run_ensemble(fitting, tests, options.out, options.ensemble, sharded)
    scores = fitted.measured or fitted.estimated
    assert scores is not None
    print(fitted.summary, *summary_lines(scores), options.out, sep="\n")


def status(argv: Sequence[str], prog: str) -> None:
    """Show the progress of a run once, or until interrupted.

    Raises:
        RunDirError: when the directory is no run.
    """
    options = read_options(StatusOptions, argv, STATUS, prog)
    from rich.console import Console

    from canopy.stages.status import overview
    from canopy.storage.run_dir import RunDir
    from canopy.train.monitor.progress_table import WIDTH

    run_dir = RunDir(options.run_dir)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    with contextlib.suppress(KeyboardInterrupt):
        console.print(overview(run_dir, time.time()))
        while options.watch:
            time.sleep(options.every)
            shown = overview(run_dir, time.time())
            console.clear()
            console.print(shown)


def weights(argv: Sequence[str], prog: str) -> None:
    """List the weights on this machine, or fetch some.

    Raises:
        ConfigError: when the weights cannot be had.
    """
    options = read_options(WeightsOptions, argv, WEIGHTS, prog)
    from canopy.models.available_weights import fetch_weights, listing

    print(listing() if options.fetch is None else fetch_weights(options.fetch))


def stage_command(name: str, summary: str, *stages: Stage) -> Command:
    """The command of one stage, or of several."""
    return Command(name, summary, lambda argv, prog: run_on_run_dir(name, stages, argv, prog))


ENSEMBLE = (
    "Combine the members' probabilities, tune thresholds, score once on the test split; "
    "--fitting NAME=FILE … [--test NAME=FILE …] --out DIR does so for predictions files"
)
GOES_ON = "with --submission-id the same command goes on"
STATUS = "Show the progress of a run from its files alone: at any time, from any terminal, without Ray"
WEIGHTS = "List the pretrained weights on this machine, and the line that fetches others"
COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        stage_command("pipeline", "Run all stages: prepare, sweep, train, ensemble, report", *Stage),
        stage_command("prepare", "Read, validate and split the images; write the catalogue", Stage.PREPARE),
        stage_command(
            "sweep",
            "Search over fields of the variants, by default over the focal-loss parameters",
            Stage.SWEEP,
        ),
        stage_command("train", "Train every variant that is not trained yet, all in parallel", Stage.TRAIN),
        Command("ensemble", ENSEMBLE, ensemble),
        stage_command("report", "Write summary.json and the report page", Stage.REPORT),
        Command("chips", CHIPS, chips, after_stop=STARTS_OVER),
        Command("predict", PREDICT, predict),
        Command("export", EXPORT, export, after_stop=STARTS_OVER),
        Command("serve", SERVE, serve, after_stop=STARTS_OVER),
        Command("submit", SUBMIT, submit, after_stop=GOES_ON),
        Command("status", STATUS, status),
        Command("monitor", MONITOR, monitor, after_stop=STARTS_OVER),
        Command("weights", WEIGHTS, weights),
    )
}
