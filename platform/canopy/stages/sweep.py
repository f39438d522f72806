"""Second stage: search for the focal parameters of one reference variant with Ray Tune.

Files written under ``sweep/`` of the run directory: ``best.json``, ``trials.json`` and ``trials/``, one
record per trial. The stage has nothing to do when no variant takes swept parameters.
"""

from __future__ import annotations

import logging

from canopy.data.catalogue import Catalogue
from canopy.errors import InputError, RunDirError
from canopy.runtime.stage import Stage
from canopy.stages.context import StageContext
from canopy.stages.prepare import load_catalogue, shared_chips
from canopy.storage import files
from canopy.sweep.selection import SweepResult
from canopy.sweep.tuner import sweep, sweep_key

logger = logging.getLogger(__name__)


def key(context: StageContext) -> str:
    """Fingerprint of the stage: sweep section, reference variant, catalogue.

    Raises:
        RunDirError: when prepare has not finished for this config.
    """
    return key_of(context, load_catalogue(context))


def key_of(context: StageContext, catalogue: Catalogue) -> str:
    """Fingerprint of the stage for a given catalogue."""
    return sweep_key(context.config, context.config.sweep_reference, catalogue.digest())


def is_done(context: StageContext) -> bool:
    """Whether the best parameters of this config are stored, or none are needed.

    Raises:
        RunDirError: when prepare has not finished for this config.
    """
    return context.config.sweep_reference is None or finished(context, load_catalogue(context)) is not None


def run(context: StageContext) -> None:
    """Sweep the focal parameters where a variant takes them, unless that is done.

    Raises:
        RunDirError: when prepare has not finished for this config.
        StageError: when every trial failed.
    """
    catalogue, reference = load_catalogue(context), context.config.sweep_reference
    if reference is None:
        context.console.say(Stage.SWEEP, "skipped: no variant takes swept parameters")
        return
    best = finished(context, catalogue)
    if best is not None:
        context.console.say(Stage.SWEEP, f"done already: γ {best.gamma:.2f}, α {best.alpha:.2f}")
        return
    context.run_dir.withdraw(Stage.SWEEP)
    chips = shared_chips(context, catalogue, Stage.SWEEP)
    sweep(context.config, reference, catalogue, chips, context.run_dir, context.console)


def load_best(context: StageContext, catalogue: Catalogue) -> SweepResult | None:
    """The result of the sweep; None when no variant takes swept parameters.

    Raises:
        RunDirError: when the sweep of this config has not finished.
    """
    if context.config.sweep_reference is None:
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
        return SweepResult.from_json(files.read_json(context.run_dir.path(Stage.SWEEP, "best.json")))
    except (FileNotFoundError, InputError, ValueError) as error:
        logger.warning("unreadable result of the sweep, taken as not done: %s", error)
        return None
