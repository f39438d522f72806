"""Help of a stage's command on one screen, and of one section of the config in full.

``--help`` shows the commonest options and the sections, ``--help SECTION`` every option of a section,
``--help-all`` every option of all sections.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import tyro

from canopy.cli.option_types import REGISTRY
from canopy.cli.options import Options
from canopy.config import Experiment, Section, VariantConfig
from canopy.errors import ConfigError, nearest

WIDTH, INDENT = 100, 32
"""Characters of a line, and before the text of an option."""
GENERAL = ("preset", "config", "run_dir", "dry_run", "max_cost")
COMMON: dict[str, tuple[str, ...]] = {
    "pipeline": (
        "data.source",
        "data.root",
        "data.image_size",
        "folds",
        "variants.0.model.backbone",
        "variants.0.optim.epochs",
        "sweep.trials",
        "augment",
    ),
    "prepare": (
        "data.source",
        "data.root",
        "data.csv",
        "data.images",
        "data.image_size",
        "data.max_bad_fraction",
        "folds",
    ),
    "sweep": (
        "sweep.trials",
        "sweep.space",
        "sweep.sampler",
        "sweep.reference",
        "sweep.epochs",
        "sweep.rows",
        "sweep.finalists",
        "sweep.concurrent",
    ),
    "train": (
        "variants.0.model.backbone",
        "variants.0.optim.epochs",
        "variants.0.optim.batch_size",
        "variants.0.scale.workers",
        "variants.0.scale.gpus_per_worker",
        "fleet.checkpoint_minutes",
        "tracking.mlflow_uri",
    ),
    "ensemble": ("ensemble.objective", "ensemble.combination", "ensemble.thresholds", "ensemble.exclusive"),
    "report": (),
}
"""Options on the help screen of each stage, in addition to the general ones."""


def wanted_help(argv: Sequence[str]) -> str | None:
    """The help in ``argv``: ``""`` for the screen, ``"all"``, or the name of a section; None without one."""
    if "--help-all" in argv:
        return "all"
    for n, word in enumerate(argv):
        if word in {"-h", "--help"}:
            following = argv[n + 1] if n + 1 < len(argv) else "-"
            return "" if following.startswith("-") else following
        if word.startswith("--help="):
            return word.partition("=")[2]
    return None


def screen(command: str, description: str, config: Experiment, prog: str) -> str:
    """Help of a stage's command in at most 40 lines.

    Args:
        command: name of the stage, or ``pipeline``.
        description: description of the command.
        config: experiment whose values are shown as defaults.
        prog: the command as the user types it.
    """
    lines = [f"usage: {prog} [OPTIONS]", "", *textwrap.wrap(description, WIDTH), "", "options:"]
    for name in GENERAL[:3] + COMMON[command] + GENERAL[3:]:
        lines += option_lines(name, config)
    lines += ["", f"sections, each with more options ({prog} --help SECTION):"]
    for name, nested in top_sections():
        inner = textwrap.wrap(", ".join(nested), WIDTH - 14) or [""]
        lines += [f"  {name:<10}  {inner[0]}".rstrip(), *(f"{'':<14}{more}" for more in inner[1:])]
    lines += [
        "",
        f"--help-all lists every option; variants.0 is the first variant of {len(config.variants)}.",
    ]
    return "\n".join(lines)


def option_lines(name: str, config: Experiment) -> list[str]:
    """Lines of one option: its flag, the first sentence of its documentation, its default."""
    owner, field, default = option_of(name, config)
    flag = f"  --{name.replace('_', '-')}"
    text = first_sentence(owner, field)
    if default not in (None, False, ""):
        text += f" (default: {default})"
    wrapped = textwrap.wrap(text, WIDTH - INDENT)
    if len(flag) >= INDENT:
        return [flag, *(f"{'':<{INDENT}}{line}" for line in wrapped)]
    return [f"{flag:<{INDENT}}{wrapped[0]}", *(f"{'':<{INDENT}}{line}" for line in wrapped[1:])]


def option_of(name: str, config: Experiment) -> tuple[type, str, Any]:
    """The class and field behind a dotted option name, and its default."""
    if name in {field.name for field in dataclasses.fields(Options)}:
        return Options, name, None
    value: Any = config
    *path, field = name.split(".")
    for part in path:
        value = value[int(part)] if part.isdigit() else getattr(value, part)
    return type(value), field, getattr(value, field)


@functools.cache
def documentation(owner: type) -> dict[str, str]:
    """The docstring of each field of a class, read from its source."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            match following:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    found[statement.target.id] = " ".join(text.split())
    return found


def first_sentence(owner: type, field: str) -> str:
    """The first sentence of a field's docstring, up to a semicolon."""
    text = documentation(owner).get(field, field.replace("_", " "))
    return re.split(r"(?<=[^.])\.(?:\s|$)|;\s", text, maxsplit=1)[0].replace("``", "")


def sections() -> dict[str, type[Section]]:
    """Every section by its dotted name; those of a variant also by their own name (``optim``)."""
    return {name: section for name, section, _ in walk(Experiment, "")}


def walk(owner: type[Section], prefix: str) -> Iterator[tuple[str, type[Section], str]]:
    """Name, class and option prefix of each section below ``owner``, depth first."""
    for field, info in owner.model_fields.items():
        if field == "variants":
            yield "variants", VariantConfig, "variants.0"
            for name, section, _ in walk(VariantConfig, ""):
                yield name, section, f"variants.0.{name}"
        elif isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield f"{prefix}{field}", info.annotation, f"{prefix}{field}"
            yield from walk(info.annotation, f"{prefix}{field}.")


def top_sections() -> list[tuple[str, list[str]]]:
    """The sections of an experiment, each with the names of the sections inside it."""
    grouped: dict[str, list[str]] = {}
    for name, _, prefix in walk(Experiment, ""):
        top = prefix.partition(".")[0]
        grouped.setdefault(top, [])
        if name != top:
            grouped[top].append(name)
    return list(grouped.items())


def section_help(name: str, config: Experiment, prog: str) -> None:
    """Print every option of a section, as tyro writes it.

    Raises:
        ConfigError: when there is no such section.
    """
    known = {section: (kind, prefix) for section, kind, prefix in walk(Experiment, "")}
    bare = re.sub(r"^variants\.\d+\.", "", name.replace("-", "_"))
    if bare not in known:
        raise ConfigError(
            "--help", "must be followed by a section, or by nothing", name, nearest(bare, known)
        )
    kind, prefix = known[bare]
    value: Any = config
    for part in prefix.split("."):
        value = value[int(part)] if part.isdigit() else getattr(value, part)
    parameter = (
        "section",
        Annotated[kind, tyro.conf.arg(name=prefix), tyro.conf.FlagConversionOff],
        dataclasses.field(default=value),
    )
    single = dataclasses.make_dataclass("single", [parameter])
    tyro.cli(single, prog=prog, args=["--help"], description=f"Section {bare}.", registry=REGISTRY)
