"""Second stage: search over fields of the variants with Ray Tune.

Files written under ``sweep/`` of the run directory: those of :mod:`canopy.sweep.outputs`, ``trials/`` with a
record per trial, ``points/`` with drawn points and checkpoints. The stage has nothing to do when no variant
takes swept values.
"""

from __future__ import annotations

import logging

from canopy.config import describe_values
from canopy.data.catalogue import Catalogue
from canopy.errors import InputError, RunDirError
from canopy.runtime.stage import Stage
from canopy.stages.context import StageContext
from canopy.stages.prepare import load_catalogue, shared_chips
from canopy.storage import files
from canopy.sweep.keys import sweep_key
from canopy.sweep.result import StudyResult, SweepResult
from canopy.sweep.search import sweep

logger = logging.getLogger(__name__)


def key(context: StageContext) -> str:
    """Fingerprint of the stage: sweep section, swept variants, catalogue.

    Raises:
        RunDirError: when prepare has not finished for this config.
    """
    return key_of(context, load_catalogue(context))


def key_of(context: StageContext, catalogue: Catalogue) -> str:
    """Fingerprint of the stage for a given catalogue."""
    return sweep_key(context.config, catalogue.digest())


def is_done(context: StageContext) -> bool:
    """Whether the best values of this config are stored, or none are needed.

    Raises:
        RunDirError: when prepare has not finished for this config.
    """
    return not context.config.sweep_studies or finished(context, load_catalogue(context)) is not None


def run(context: StageContext) -> None:
    """Sweep where a variant takes swept values, unless that is done.

    Raises:
        RunDirError: when prepare has not finished for this config.
        StageError: when every trial of a variant failed.
    """
    catalogue = load_catalogue(context)
    if not context.config.sweep_studies:
        context.console.say(Stage.SWEEP, "skipped: no variant takes swept parameters")
        return
    best = finished(context, catalogue)
    if best is not None:
        context.console.say(
            Stage.SWEEP, f"done already: {'; '.join(describe_result(one) for one in best.studies)}"
        )
        return
    context.run_dir.withdraw(Stage.SWEEP)
    chips = shared_chips(context, catalogue, Stage.SWEEP)
    sweep(context.config, catalogue, chips, context.run_dir, context.console)


def describe_result(result: StudyResult) -> str:
    """What the takers of a study take, in words."""
    if result.members:
        return result.verdict
    if not result.finalists:
        return describe_values(result.values)
    return f"{result.variant}: {describe_values(result.values)}"


def load_best(context: StageContext, catalogue: Catalogue) -> SweepResult | None:
    """The result of the sweep; None when no variant takes swept values.

    Raises:
        RunDirError: when the sweep of this config has not finished.
    """
    if not context.config.sweep_studies:
        return None
    best = finished(context, catalogue)
    if best is None:
        thing = f"Run directory {files.shown(context.run_dir.root)}"
        need = "must hold a finished sweep of this config"
        raise RunDirError(thing, need, "none", "Run jobs/sweep.py with it first.")
    return best


def finished(context: StageContext, catalogue: Catalogue) -> SweepResult | None:
    """The result of the sweep when it finished for this config and can be read, else None."""
    if context.run_dir.done(Stage.SWEEP, key_of(context, catalogue)) is None:
        return None
    try:
        content = files.read_json(context.run_dir.path(Stage.SWEEP, "best.json"))
        return SweepResult.from_json(content, context.config)
    except (FileNotFoundError, InputError, ValueError) as error:
        logger.warning("unreadable result of the sweep, taken as not done: %s", error)
        return None
