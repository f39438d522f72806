"""Fingerprints of the sweep and of the trials of one study."""

from __future__ import annotations

from typing import Any

from canopy.config import Experiment, Study, derive, fingerprint
from canopy.config.search_space import space_content
from canopy.runtime.stage import Stage
from canopy.storage.run_dir import LAYOUT


def sweep_key(config: Experiment, digest: str) -> str:
    """Fingerprint of the sweep: its config section, the swept variants and the catalogue's digest."""
    studies = config.sweep_studies
    variants: list[Any] = [study.variant for study in studies] or [None]
    parts = [LAYOUT, Stage.SWEEP, config.sweep, *variants, digest]
    if config.sweep.objective in {"ensemble", "macro_f1"} or config.sweep.members:
        parts.append(config.ensemble)
    return fingerprint(*parts, *cost_parts(config))


def study_key(config: Experiment, study: Study, digest: str) -> str:
    """Fingerprint of the trials of one study.

    It does not cover how many trials there are and what becomes of the best: a sweep that is started again
    with more trials or finalists goes on from those that it has.
    """
    if config.sweep.is_plain_focal:
        return sweep_key(config, digest)
    search = derive(
        config.sweep,
        trials=1,
        minutes=None,
        finalists=None,
        final_seeds=2,
        members=None,
        warm_start=(),
        space=None,
        variants={},
        sampler=None,
    )
    space = space_content(study.space)
    parts = [LAYOUT, Stage.SWEEP, search, study.variant, digest, study.sampler, space]
    if config.sweep.objective in {"ensemble", "macro_f1"}:
        parts.append(config.ensemble)
    return fingerprint(*parts, *cost_parts(config))


def cost_parts(config: Experiment) -> tuple[int, ...]:
    """What the epochs of trials depend on besides: at equal cost, the size of the chips."""
    return (config.data.image_size,) if config.sweep.equal_cost else ()
