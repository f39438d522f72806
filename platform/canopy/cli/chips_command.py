"""The sub-command ``chips``: a georeferenced scene and polygons become a labelled chip set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from canopy.cli.options import read_options

CHIPS = "Cut a georeferenced scene into chips, labelled by polygons"


@dataclass(frozen=True)
class ChipsOptions:
    """Options of ``chips``."""

    scene: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SCENE")]
    """Path or URI of the scene."""
    labels: str
    """File of polygons: GeoPackage, GeoJSON, Shapefile."""
    out: str
    """Directory to write, new or empty."""
    size: int = 256
    """Height and width of a chip, 8 to 4096 pixels of the scene."""
    column: str = "label"
    """Column of the polygons that holds the label."""
    min_share: float = 0.05
    """Share of a chip that a label must cover to belong to it, above 0 to 1."""
    block: int = 4
    """Chips along the side of a block, 1 or more; a block is one group and stays in one split."""


def chips(argv: Sequence[str], prog: str) -> None:
    """Cut a scene.

    Raises:
        CanopyError: see :func:`canopy.inference.scenes.cutting.cut_scene`.
    """
    options = read_options(ChipsOptions, argv, CHIPS, prog)
    from canopy.inference.scenes.formats import require_packages

    require_packages("canopy chips")
    from canopy.inference.scenes.cutting import CutRequest, cut_scene, training_command
    from canopy.runtime.console import Console

    console = Console()
    cut = cut_scene(CutRequest(**vars(options)))
    left_out = f"; {cut.left_out:,} without data left out" if cut.left_out else ""
    console.say("chips", f"{cut.chips:,} chips in {options.out}{left_out}")
    for label, count in cut.positives.items():
        console.say("chips", f"{label}: {count:,} chips")
    console.say("chips", f"train: {training_command(options.out, options.size)}")
