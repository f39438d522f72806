"""First stage: read a labelled image source, validate it, split it, write the catalogue.

Every image is read and decoded once. Files written under ``prepare/`` of the run directory:

- ``catalogue.parquet``: one row per image (:class:`canopy.data.catalogue.Catalogue`);
- ``chips.npy``: the decoded chips, uint8 (N, S, S, 3), in catalogue order, unless they are too large to keep;
- ``bands.json``: with ``data.bands``, statistics of each band over the training rows;
- ``validation.json``: problems and statistics of the data; metres per pixel of chips with a georeference;
- ``sees-VARIANT-….png``: a contact sheet of augmented chips for each augmentation.
"""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa

from canopy.config import Experiment, fingerprint
from canopy.data.augmentation_sheet import write_contact_sheets
from canopy.data.catalogue import Catalogue
from canopy.data.duplicates import duplicates_from_hashes
from canopy.data.listing import Listing
from canopy.data.loading.band_sums import constant_bands, write_band_statistics
from canopy.data.loading.chip_cache import ChipCache
from canopy.data.loading.chip_source import ChipSource, open_chip_source
from canopy.data.loading.decode_dataset import decode_dataset
from canopy.data.raster.georeference import metres_per_pixel
from canopy.data.validate import level_warnings, refuse_bad, refuse_unlearnable, validate
from canopy.errors import InputError, RunDirError
from canopy.runtime.console import Console
from canopy.runtime.stage import Stage
from canopy.stages.checks import check_catalogue, check_soft_labels
from canopy.stages.context import StageContext
from canopy.stages.image_sources import data_root, list_source, make_chips
from canopy.stages.splitting import check_blocks, split_listing
from canopy.storage import files
from canopy.storage.run_dir import LAYOUT, RunDir, timed

logger = logging.getLogger(__name__)

CATALOGUE = "catalogue.parquet"


def key(context: StageContext) -> str:
    """Fingerprint of the stage for the data set that the run directory belongs to.

    Raises:
        RunDirError: when the run directory has no data set yet, or its record cannot be read.
    """
    known = context.run_dir.read_data()
    if known is None:
        raise not_prepared_error(context.run_dir)
    return key_of(context.config, known.identity, known.arrangement)


def key_of(config: Experiment, identity: str, arrangement: str) -> str:
    """Fingerprint of the stage for a given data set.

    Args:
        config: its data section and number of folds enter the fingerprint.
        identity: hash of the image files.
        arrangement: hash of given splits, groups and the order of labels.
    """
    return fingerprint(LAYOUT, Stage.PREPARE, config.data, config.folds, identity, arrangement)


def is_done(context: StageContext) -> bool:
    """Whether the catalogue of this config is there."""
    return context.run_dir.claimed and context.run_dir.done(Stage.PREPARE, key(context)) is not None


def run(context: StageContext) -> None:
    """Read, validate and split the images, unless that is done for the same data and settings.

    Raises:
        DataError: when the data set cannot be used.
        RunDirError: when the run directory belongs to another data set.
    """
    config, run_dir, console = context.config, context.run_dir, context.console
    root = data_root(config, run_dir)
    with timed() as watch:
        if config.data.source == "generated":
            make_chips(config, root, console)
        listing = list_source(config, root, run_dir, console)
        refuse_listing(config, run_dir, listing)
        recorded = run_dir.read_data()
        identity = listing.identity_in(recorded.identity if recorded else None)
        data_set = identity, len(listing), root
        run_dir.check_claim(*data_set)
        run_dir.store_config(config)
        stage_key = key_of(config, identity, listing.arrangement)
        if run_dir.done(Stage.PREPARE, stage_key) and (catalogue := readable_catalogue(run_dir)) is not None:
            console.say(Stage.PREPARE, f"done already: {len(listing):,} images")
            check_catalogue(config, catalogue)
            write_contact_sheets(config, run_dir, catalogue)  # the augmentation may have changed
            return
        cache = ChipCache.of_run(run_dir)
        try:
            catalogue = write_catalogue(config, run_dir, listing, console, cache)
        finally:
            cache.discard()  # left over when the images were refused
        run_dir.claim(*data_set, listing.arrangement)  # last, so that refused images may still be repaired
        for sheet in write_contact_sheets(config, run_dir, catalogue):
            console.say(Stage.PREPARE, f"what {', '.join(sheet.variants)} will see: {sheet.path}")
    run_dir.finish(Stage.PREPARE, stage_key, [CATALOGUE], **watch, digest=catalogue.digest(), root=root)


def load_catalogue(context: StageContext) -> Catalogue:
    """The catalogue that prepare wrote for this config.

    Raises:
        RunDirError: when prepare has not finished for this config, or its catalogue cannot be read.
        InputError: when the experiment cannot be trained on it (see :func:`check_catalogue`).
    """
    if not is_done(context):
        raise not_prepared_error(context.run_dir)
    catalogue = readable_catalogue(context.run_dir)
    if catalogue is None:
        place = files.shown(context.run_dir.path(Stage.PREPARE, CATALOGUE))
        raise RunDirError(place, "must be a readable catalogue", "a damaged file", "Run prepare again.")
    check_catalogue(context.config, catalogue)
    return catalogue


def not_prepared_error(run_dir: RunDir) -> RunDirError:
    """The error of a later stage that finds no catalogue of its config."""
    thing, need = f"Run directory {files.shown(run_dir.root)}", "must hold a catalogue of this config"
    return RunDirError(thing, need, "none", "Run jobs/prepare.py with it first.")


def readable_catalogue(run_dir: RunDir) -> Catalogue | None:
    """The catalogue in the run directory, or None where it is missing or damaged."""
    try:
        return Catalogue.read(run_dir.path(Stage.PREPARE, CATALOGUE))
    except (FileNotFoundError, IsADirectoryError, InputError, pa.ArrowException) as error:
        logger.warning("unreadable catalogue: %s", error)
        return None


def refuse_listing(config: Experiment, run_dir: RunDir, listing: Listing) -> None:
    """Stop when too many rows of the source are unusable before any image is read.

    All unusable rows are named in ``validation.json``, unless the run directory has been prepared already.

    Raises:
        DataError: names the first row.
    """
    report, rows = run_dir.path(Stage.PREPARE, "validation.json"), len(listing) + len(listing.bad)
    if not run_dir.claimed:
        files.write_json(report, {"rows": rows, "bad": listing.bad})
    refuse_bad(listing.bad, rows, config.data.max_bad_fraction, report)


def write_catalogue(
    config: Experiment, run_dir: RunDir, listing: Listing, console: Console, cache: ChipCache
) -> Catalogue:
    """Decode, validate, split and write.

    Args:
        config: data section, folds, and the settings that the data is checked against.
        run_dir: receives the files.
        listing: the images.
        console: receives progress.
        cache: receives the decoded chips.

    Raises:
        DataError: when too many images are unreadable, or the labels cannot be learned or tuned.
    """
    check_blocks(config, listing)
    console.say(Stage.PREPARE, f"{len(listing):,} images, {len(listing.labels)} labels; validating")
    report = run_dir.path(Stage.PREPARE, "validation.json")
    run_dir.withdraw(Stage.PREPARE)
    decoded = decode_dataset(listing.uris, config.data, cache, console)
    findings = validate(listing, decoded.inspections)
    files.write_json(report, findings.to_dict())
    refuse_bad(findings.bad, findings.rows, config.data.max_bad_fraction, report)
    for name, reason in list(findings.bad.items())[:5]:
        console.say(Stage.PREPARE, f"skipped {name}: {reason}")
    keep = np.array([n for n, found in enumerate(decoded.inspections) if not found.problem], np.int64)
    kept = decoded.subset(keep)
    ids = [listing.ids[n] for n in keep]
    tags = [listing.tags[n] for n in keep]
    duplicates = duplicates_from_hashes(ids, kept.hashes, kept.thumbs_NSS, tags)
    findings = validate(listing, decoded.inspections, duplicates)
    files.write_json(report, findings.to_dict())

    catalogue, split_notes = split_listing(config, listing, keep, duplicates)
    notes = [*listing.notes, *findings.warnings(), *level_warnings(kept.inspections, kept.thumbs_NSS)]
    notes += split_notes
    metres = metres_per_pixel(catalogue.uris, config.data.image_size)
    ground = {} if metres is None else {"metres_per_pixel": metres}
    files.write_json(report, {**findings.to_dict(), "notes": notes, **ground})
    for note in notes:
        console.say(Stage.PREPARE, f"note: {note}")
    refuse_unlearnable(catalogue, config.data.limit)
    check_catalogue(config, catalogue)
    check_soft_labels(config, catalogue)
    kept.publish()
    if kept.sums is not None:
        statistics = kept.sums.statistics(catalogue.rows("train"), config.data)
        write_band_statistics(run_dir, statistics)
        for name in constant_bands(statistics):
            console.say(Stage.PREPARE, f"note: the band {name} has one level in all training chips")
    catalogue.write(run_dir.path(Stage.PREPARE, CATALOGUE))
    parts = ", ".join(f"{len(catalogue.rows(s)):,} {s}" for s in ("train", "val", "test"))
    console.say(Stage.PREPARE, f"catalogue written: {parts}")
    return catalogue


_SHARED: dict[str, ChipSource] = {}


def shared_chips(context: StageContext, catalogue: Catalogue, stage: Stage) -> ChipSource:
    """The chips for all stages of this process, opened once (:func:`open_chip_source`).

    Raises:
        RunDirError: when the cached chips do not match the catalogue.
    """
    shared_key = f"{context.run_dir.root} {catalogue.digest()}"
    if shared_key not in _SHARED:
        _SHARED.clear()
        _SHARED[shared_key], note = open_chip_source(context.run_dir, catalogue, context.config.data)
        context.console.say(stage, note)
    return _SHARED[shared_key]
