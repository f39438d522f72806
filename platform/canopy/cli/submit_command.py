"""The sub-command ``submit``: a stage as a job on a cluster, checked first, then followed to its end."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from canopy.cli.exit_status import INTERRUPT_STATUS
from canopy.cli.help import wanted_help
from canopy.cli.options import parse, peek, read_options
from canopy.cli.predict_command import PredictOptions, options_unread
from canopy.errors import ConfigError, StorageError, nearest, refuse_secret_arguments
from canopy.runtime.cluster import refuse_relative_path
from canopy.runtime.console import Console
from canopy.runtime.job_package import check_package
from canopy.runtime.stage import Stage
from canopy.storage.yaml_files import read_yaml

SUBMIT = "Send a job to a cluster: checks first, then follows its log to its exit status"
RUNTIME_ENV = Path("platform/deploy/runtime_env.yaml")
STAGES = ("pipeline", *(stage.value for stage in Stage))
JOBS = (*STAGES, "predict")


@dataclass(frozen=True)
class SubmitOptions:
    """Options of ``submit``. All others belong to the job: canopy submit STAGE --help."""

    stage: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STAGE")]
    """pipeline, prepare, sweep, train, ensemble, report or predict, followed by its own options."""
    submission_id: str | None = None
    """Name of the job. Where it runs already with the same options, its log is followed; where it has ended,
    the job goes on under NAME-2, NAME-3, …"""
    no_wait: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Return when the job is submitted, without following its log."""


def submit(argv: Sequence[str], prog: str) -> None:
    """Submit a job and follow it.

    Raises:
        ConfigError: when an option, the code to upload, the address or the token is wrong, before anything is
            uploaded.
        ClusterError: when the cluster fails.
        SystemExit: with the exit status of the job, unless that is 0; 130 after Ctrl-C.
    """
    refuse_secret_arguments(argv)
    own, rest = split_arguments(argv)
    stage_given = bool(own) and not own[0].startswith("-")
    options = read_options(SubmitOptions, own if stage_given else [*own, *rest], SUBMIT, prog)
    if options.stage not in JOBS:
        need = f"must be one of {', '.join(JOBS)}"
        raise ConfigError("STAGE", need, options.stage, nearest(options.stage, JOBS))
    if wanted_help(rest) is not None:
        from canopy.cli.commands import COMMANDS  # which imports this module

        COMMANDS[options.stage].body(rest, f"{prog} {options.stage}")
        return
    check_name(options.submission_id)
    console = Console()
    names, runtime_env = checked_package(console)
    check_job(options.stage, rest, names, console)
    send(options, shlex.join(["python", f"jobs/{options.stage}.py", *rest]), runtime_env, console)


def split_arguments(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The STAGE and the options of ``submit`` itself, wherever they stand, and what belongs to the job.

    The first word that is no option is the STAGE; in the first list it comes first.
    """
    stage: list[str] = []
    own: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        flag, equals, _ = word.partition("=")
        if flag.replace("_", "-") == "--submission-id":
            own += [word] if equals else [word, *itertools.islice(words, 1)]
        elif flag.replace("_", "-") == "--no-wait":
            own.append(word)
        elif not stage and not word.startswith("-"):
            stage = [word]
        else:
            rest.append(word)
    return stage + own, rest


def check_name(name: str | None) -> None:
    """Refuse an id that is no name of a file: Ray names the job's log after it.

    Raises:
        ConfigError: when it is.
    """
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        need = "must be up to 100 letters, digits, dots, dashes and underscores"
        raise ConfigError("--submission-id", need, name, "Give another one.")


def checked_package(console: Console) -> tuple[list[str], dict[str, Any]]:
    """The files to upload, relative to this directory, and the runtime environment.

    Raises:
        ConfigError: when this directory is not the top of the repository, or its package may not travel.
    """
    if not RUNTIME_ENV.is_file() or not Path("jobs/pipeline.py").is_file():
        need, got = "must be the top of Canopy's repository", "no platform/deploy/runtime_env.yaml in it"
        raise ConfigError("The working directory", need, got, "Change to it: its code is what travels.")
    runtime_env = read_yaml(str(RUNTIME_ENV), str(RUNTIME_ENV))
    names, size = check_package(Path(), runtime_env)
    console.say("submit", f"code: {len(names):,} files, {size / 2**20:.1f} MiB, no secrets")
    return names, {**runtime_env, "working_dir": str(Path().absolute())}


def check_job(stage: str, argv: Sequence[str], names: Collection[str], console: Console) -> None:
    """Refuse on this machine what the job would refuse on the cluster.

    Args:
        stage: one of ``JOBS``.
        argv: options of the job.
        names: files that travel.
        console: prints what could not be checked.

    Raises:
        ConfigError: when an option is wrong, or a path is not one for the cluster.
    """
    if stage == "predict":
        options = read_options(PredictOptions, argv, SUBMIT, stage)
        options_unread(options)
        for option in ("model", "out", "images", "scene"):
            if (value := getattr(options, option)) is not None:
                refuse_relative_path(f"--{option}", value)
        return
    config = peek(argv, "config")
    refuse_relative_path("--run-dir", peek(argv, "run-dir"))
    if config is not None and not config.startswith("/") and "://" not in config:
        if os.path.normpath(config) not in names:
            need = "must lie in configs/ of this directory: other config files do not travel with a job"
            raise ConfigError("--config", need, config, "Copy it there, or give a URI.")
    elif config is not None and "://" not in config and not Path(config).exists():
        console.say("submit", "the job checks its options itself: --config is a file of the cluster")
        return
    try:
        request = parse(argv, SUBMIT, stage)
    except StorageError as error:
        console.say("submit", f"the job checks its options itself: {error}")
        return
    if request.config.data.root is not None:
        refuse_relative_path("--data.root", request.config.data.root)


def send(options: SubmitOptions, entrypoint: str, runtime_env: dict[str, Any], console: Console) -> None:
    """Submit the job, or find the one that runs already, and follow it.

    Raises:
        ConfigError: see :func:`canopy.runtime.job_client.open_client` and ``next_attempt``.
        ClusterError: when the cluster fails.
        SystemExit: with the exit status of the job, unless that is 0; 130 after Ctrl-C.
    """
    from canopy.runtime import job_client

    address = job_client.jobs_address()
    client = job_client.open_client(address)
    name, runs = options.submission_id, False
    if name is not None:
        name, runs = job_client.next_attempt(client, name, entrypoint)
    if runs:
        console.say("submit", f"{name} runs already at {address}")
    else:
        name = job_client.submit(client, entrypoint, runtime_env, name)
        console.say("submit", f"{name} submitted to {address}: {entrypoint}")
    assert name is not None
    lines = f"follow: ray job logs --follow {name}   stop: ray job stop {name}"
    if options.no_wait:
        console.say("submit", lines)
        return
    try:
        status = job_client.LogFollower(client, name, write_now).follow()
    except KeyboardInterrupt:
        print(f"\n{name} goes on without this terminal; {lines}", file=sys.stderr)
        raise SystemExit(INTERRUPT_STATUS) from None
    console.say("submit", f"{name} ended with status {status}")
    if status:
        raise SystemExit(status)


def write_now(text: str) -> None:
    """Write a piece of the job's log as it comes."""
    sys.stdout.write(text)
    sys.stdout.flush()
