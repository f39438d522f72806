"""The command ``predict --scene``: checks what it is given, then scores the scenes and writes their maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from canopy.bands import BandLayout
from canopy.config import Experiment
from canopy.ensemble.model import Ensemble
from canopy.errors import ConfigError, DataError, InputError
from canopy.inference.job import NAME, model_digest
from canopy.inference.load import open_run
from canopy.inference.scenes.bands import parse_bands
from canopy.inference.scenes.blocks import BlockDirectory
from canopy.inference.scenes.grid import Grid
from canopy.inference.scenes.listing import list_scenes
from canopy.inference.scenes.mosaic import check_mosaic, write_mosaic
from canopy.inference.scenes.reader import SceneReader, model_size
from canopy.inference.scenes.request import SceneRequest, check_request
from canopy.inference.scenes.scene import SAME_SCALE, Scene, SceneBands, check_scene
from canopy.inference.shards import rows_per_shard
from canopy.runtime.cluster import connect
from canopy.runtime.console import Console
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import RunDir

METRES = "metres_per_pixel"
"""Field of ``prepare/validation.json``: metres per pixel of chips that have a georeference."""


@dataclass(frozen=True)
class Plan:
    """One scene that passed all checks."""

    reader: SceneReader
    directory: BlockDirectory


def predict_scenes(request: SceneRequest, console: Console) -> int:
    """Map every scene; goes on with what an earlier start left.

    Returns:
        The number of scenes.

    Raises:
        ConfigError: when an option is wrong, the output cannot be written, or it is of another job.
        DataError: when a scene cannot be mapped.
        RunDirError: when the run is not finished, or damaged.
        StorageError: when a store fails.
        ClusterError: when worker processes keep dying.
    """
    check_request(request)
    addresses = list_scenes(request.scene, request.asset)
    run_dir = RunDir(files.absolute(request.model))
    config, ensemble = open_run(run_dir, request.members or None, request.max_members)
    layout = BandLayout.of(config.data)
    stated = parse_bands(request.bands, layout)
    wanted = None if layout is None else SceneBands(layout, stated, config.data.display)
    trained = training_resolution(run_dir, request.resolution)
    digest = model_digest(run_dir, config, ensemble)
    plans = [
        plan_scene(
            request, check_scene(address, config.data.sensor, wanted), trained, config, ensemble, digest
        )
        for address in addresses
    ]
    if request.mosaic:
        check_mosaic([plan.reader.scene for plan in plans])
    for plan in plans:
        plan.directory.open()
    unfinished = [plan for plan in plans if not plan.directory.finished]
    if not unfinished:
        console.say(NAME, "done already")
    if any(plan.directory.missing() for plan in unfinished):
        score(request, run_dir, config, ensemble, unfinished, console)
    for plan in unfinished:
        finish(request, plan, ensemble, console)
    if request.mosaic:
        height, width = write_mosaic([plan.directory.root for plan in plans], request.out, ensemble)
        console.say(NAME, f"mosaic of {len(plans):,} scenes: {width:,} by {height:,} cells")
    return len(plans)


def training_resolution(run_dir: RunDir, stated: float | None) -> float:
    """Metres per pixel of the chips that the run was trained on.

    Raises:
        ConfigError: when neither the run nor the option says it.
    """
    if stated is not None:
        return stated
    path = run_dir.path(Stage.PREPARE, "validation.json")
    known: Any = None
    if files.exists(path):
        try:
            found = files.read_json(path)
        except InputError:
            found = None
        known = found.get(METRES) if isinstance(found, dict) else None
    if isinstance(known, int | float) and known > 0:
        return float(known)
    need = "must state the metres per pixel of the training chips, which have no georeference"
    raise ConfigError("--resolution", need, "nothing", "Give --resolution METRES.")


def resampling_factor(scene: Scene, trained: float, max_factor: float) -> float:
    """Pixels of the scene along the side of a model pixel; 1 where the two are equal.

    Raises:
        DataError: when they differ by more than ``max_factor``.
    """
    factor = trained / scene.metres
    if abs(factor - 1) <= SAME_SCALE:
        return 1.0
    if max(factor, 1 / factor) > max_factor * (1 + 1e-9):
        thing = f"The scene {files.shown(scene.address)}"
        need = f"must have {trained:g} m per pixel within a factor of {max_factor:g}, as the training chips"
        remedy = "Give a scene of a matching sensor, or raise --max-resampling."
        raise DataError(thing, need, f"{scene.metres:g} m", remedy)
    return factor


def plan_scene(
    request: SceneRequest, scene: Scene, trained: float, config: Experiment, ensemble: Ensemble, digest: str
) -> Plan:
    """The windows of a scene, and where its output goes.

    Raises:
        DataError: when its resolution is too different, or it is smaller than a chip.
    """
    size, layout = config.data.image_size, BandLayout.of(config.data)
    factor = resampling_factor(scene, trained, request.max_resampling)
    check_nodata(scene, factor)
    height, width = model_size(scene, factor)
    if min(height, width) < size:
        thing = f"The scene {files.shown(scene.address)}"
        need = f"must be at least as large as a chip, {size} pixels of {scene.metres * factor:g} m a side"
        raise DataError(thing, need, f"{width} by {height}", "Predict it as an image (--images).")
    # Read as floats, a window of C bands takes as much memory as that of an RGB chip of more pixels a side.
    pixels = size if layout is None else ceil(size * (4 * len(layout.bands) / 3) ** 0.5)
    side = request.block_windows or max(1, int(rows_per_shard(pixels) ** 0.5))
    grid = Grid.of(height, width, size, request.overlap, side)
    facts = {**asdict(scene), "transform": scene.transform[:6], "nodata": None}  # the model says the nodata
    scene_facts = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in facts.items()
        if value is not None
    }
    job = {
        "model": digest,
        "scene": scene_facts,
        "file": file_state(scene.address),
        "grid": asdict(grid),
        "precision": request.precision,
        "vectors": sorted(request.formats),
        "crs": request.crs,
        "labels": list(ensemble.labels.names),
    }
    root = files.join(files.absolute(request.out), scene.name)
    directory = BlockDirectory(root, grid, len(ensemble.labels), job)
    return Plan(SceneReader(scene, grid, factor, config.data.sensor, layout), directory)


def check_nodata(scene: Scene, factor: float) -> None:
    """Refuse to resample bands that differ in the sample without a value.

    Raises:
        DataError: naming their values.
    """
    if factor != 1 and len(set(scene.nodata)) > 1:
        need = "must have one nodata for all bands that the model reads where it is resampled"
        got = ", ".join("none" if value is None else f"{value:g}" for value in scene.nodata)
        thing = f"The scene {files.shown(scene.address)}"
        raise DataError(thing, need, got, "Warp the scene first (gdalwarp -tr).")


def file_state(address: str) -> list[int]:
    """Size and time of change of a scene's file, by which a later start knows it again.

    Raises:
        StorageError: when the object store refuses.
    """
    filesystem, inner = files.resolve(address)
    with files.store_errors(address):
        found = filesystem.get_file_info(inner)
    return [found.size, found.mtime_ns or 0]


def score(
    request: SceneRequest,
    run_dir: RunDir,
    config: Experiment,
    ensemble: Ensemble,
    plans: Sequence[Plan],
    console: Console,
) -> None:
    """Start Ray and score the missing blocks of every scene."""
    from canopy.inference.batch import ModelSource, Workplace
    from canopy.inference.load import assemble
    from canopy.inference.networks import chosen_device
    from canopy.inference.scenes.run import ScenePipeline
    from canopy.train.fleet.shutdown import end_on_sigterm

    assemble(run_dir, config, ensemble, chosen_device("cpu"), request.precision)  # every file is checked here
    connect()
    end_on_sigterm()
    source = ModelSource(run_dir.root, config, ensemble, request.precision)
    for plan in plans:
        missing, total = len(plan.directory.missing()), plan.reader.grid.blocks
        if not missing:
            continue
        if missing < total:
            console.say(NAME, f"{total - missing:,} of {total:,} blocks are done already")
        workplace = Workplace.of_cluster(missing, request.gpus_per_actor, request.cpus_per_actor)
        console.say(NAME, f"{described(plan)}; {workplace}")
        ScenePipeline(source, plan.reader, plan.directory, workplace).run(console)


def described(plan: Plan) -> str:
    """A scene, its windows and its resampling, in words."""
    reader = plan.reader
    scene, grid = reader.scene, reader.grid
    rows, columns = grid.windows
    text = f"{scene.name}: {scene.width:,} by {scene.height:,} pixels of {scene.metres:g} m, "
    text += f"{rows * columns:,} windows, cells of {grid.stride * reader.factor * scene.metres:g} m"
    if reader.factor != 1:
        text += f", resampled to {scene.metres * reader.factor:g} m per pixel"
    return text


def finish(request: SceneRequest, plan: Plan, ensemble: Ensemble, console: Console) -> None:
    """Write the map of a scored scene."""
    from canopy.inference.scenes.outputs import MapFormats, write_map

    formats = MapFormats(request.formats, None if request.crs == "scene" else request.crs)
    reader = plan.reader
    facts = write_map(reader.scene, reader.factor, plan.directory, ensemble, formats, described(plan))
    plan.directory.finish(facts)
    counts = f"{facts['cells']:,} cells, {facts['areas']:,} areas"
    console.say(NAME, f"{reader.scene.name}: {counts} in {files.shown(plan.directory.root)}")
