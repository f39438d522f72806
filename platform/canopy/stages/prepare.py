"""The first stage: read a labelled image source, validate it, split it, write the catalogue.

Every image is read and decoded once. What comes out, under ``prepare/`` of the run directory:
``catalogue.parquet``, ``chips.npy`` (the decoded chips, uint8, row by row as in the catalogue, unless they
are too many to keep), ``validation.json``, and ``sees-VARIANT-….png``, a contact sheet of what training will
see, for each augmentation.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from pyarrow import fs

from canopy.config import DataConfig, Experiment, fingerprint
from canopy.data.catalogue import Catalogue
from canopy.data.contact_sheet import write_sheets
from canopy.data.duplicates import compare, pixel_hashes, thumbnails
from canopy.data.loading.chip_cache import decode_all, keep_rows, mapped, room_for
from canopy.data.loading.loader import Chips
from canopy.data.loading.uri_list import UriList
from canopy.data.sources import Listing, list_images
from canopy.data.split import assign_splits, check_evenness
from canopy.data.synthetic.generate import generate
from canopy.data.validate import (
    Inspection,
    check_labels,
    check_leakage,
    check_levels,
    refuse_bad,
    refuse_unlearnable,
    validate,
)
from canopy.errors import ConfigError, RunDirError
from canopy.runtime.cluster import started_here
from canopy.runtime.console import Console
from canopy.runtime.ray_tasks import map_blocks
from canopy.storage import files
from canopy.storage.run_dir import LAYOUT, RunDir, timed

STORE_SHARE = 0.5
"""Decoded chips may take this share of a node's object store; the rest is for batches on their way."""
UNIT = "prepare"


def prepare(config: Experiment, run: RunDir, console: Console) -> Catalogue:
    """Do the stage, unless it is done for the same data and settings.

    Raises:
        DataError: when the data set cannot be used.
        RunDirError: when the run directory belongs to another data set.
    """
    root = data_root(config, run)
    with timed() as watch:
        if config.data.source == "generated":
            make_chips(config, root, console)
        listing = list_images(config.data, root)
        refuse_listing(config, run, listing)
        data_set = listing.identity, len(listing), root
        run.check_claim(*data_set)
        run.store_config(config)
        key = prepare_key(config, listing.identity, listing.arrangement)
        if run.done(UNIT, key):
            console.say(UNIT, f"done already: {len(listing):,} images")
            catalogue = Catalogue.read(run.path(UNIT, "catalogue.parquet"))
            write_sheets(config, run, catalogue)  # the augmentation may be another
            return catalogue
        place = mapped_place(run)
        try:
            catalogue = write_catalogue(config, run, listing, console, place)
        finally:
            if place is not None:  # there still, when the images were refused
                place.unlink(missing_ok=True)
        run.claim(*data_set, listing.arrangement)  # not before: who is told to repair images may do so
        for sheet in write_sheets(config, run, catalogue):
            console.say(UNIT, f"what {', '.join(sheet.variants)} will see: {sheet.path}")
    run.finish(UNIT, key, **watch, digest=catalogue.digest(), root=root)
    return catalogue


def prepare_key(config: Experiment, identity: str, arrangement: str) -> str:
    """The stage's fingerprint: the data section, the number of folds, the data set and how it is arranged."""
    return fingerprint(LAYOUT, UNIT, config.data, config.folds, identity, arrangement)


def data_root(config: Experiment, run: RunDir) -> str:
    """Where the images are.

    Raises:
        ConfigError: when the source needs a root and none is given.
    """
    if config.data.root is not None:
        root = config.data.root
        return files.absolute(root)
    if config.data.source != "generated":
        need = f"must name the directory that holds {config.data.csv} and {config.data.images}/"
        raise ConfigError("data.root", need, None, "Give --data.root DIR.")
    if files.is_uri(run.root):
        need = "must name a directory for the generated chips when the run directory is a URI"
        raise ConfigError("data.root", need, None, "Give --data.root with a directory that all nodes share.")
    return run.path("data")


def make_chips(config: Experiment, root: str, console: Console) -> None:
    """Generate the built-in data set, unless it is there."""
    total, since, done = config.data.generate.rows, time.monotonic(), 0

    def in_parallel(work: Callable[[range], int], ranges: list[range]) -> Iterator[int]:
        nonlocal done
        for rows in map_blocks(work, ranges):
            done += rows
            console.count(UNIT, "chips generated", done, total, since)
            yield rows

    generate(config.data.generate, Path(root), in_parallel)


def refuse_listing(config: Experiment, run: RunDir, listing: Listing) -> None:
    """Stop when too many rows of the source cannot be used, whatever their images are.

    All are named in ``validation.json``, unless the run directory has been prepared already.

    Raises:
        DataError: naming the first of them.
    """
    report, rows = run.path(UNIT, "validation.json"), len(listing) + len(listing.bad)
    if not run.claimed:
        files.write_json(report, {"rows": rows, "bad": listing.bad})
    refuse_bad(listing.bad, rows, config.data.max_bad_fraction, report)


def write_catalogue(
    config: Experiment, run: RunDir, listing: Listing, console: Console, place: Path | None
) -> Catalogue:
    """Decode, validate, split, write; ``place`` is the file in which the decoded chips are to grow."""
    console.say(UNIT, f"{len(listing):,} images, {len(listing.labels)} labels; validating")
    report = run.path(UNIT, "validation.json")
    run.reopen(UNIT)
    decoded = decode(listing, config.data, console, place)
    findings = validate(listing, decoded.inspections)
    files.write_json(report, findings.to_dict())
    refuse_bad(findings.bad, findings.rows, config.data.max_bad_fraction, report)
    for name, reason in list(findings.bad.items())[:5]:
        console.say(UNIT, f"skipped {name}: {reason}")
    keep = np.array([n for n, found in enumerate(decoded.inspections) if not found.problem], np.int64)
    kept = decoded.only(keep)
    ids = [listing.ids[n] for n in keep]
    tags = [listing.tags[n] for n in keep]
    duplicates = compare(ids, kept.hashes, kept.thumbs_NSS, tags)
    findings = validate(listing, decoded.inspections, duplicates)
    files.write_json(report, findings.to_dict())

    targets_NK = listing.labels.encode(tags)
    group = duplicates.groups(ids, listing.groups and [listing.groups[n] for n in keep])
    own = listing.splits and [listing.splits[n] for n in keep]
    split, fold = assign_splits(targets_NK, config.data, config.folds, group, own)
    uris = [listing.uris[n] for n in keep]
    catalogue = Catalogue(ids, uris, targets_NK, split, fold, group, listing.labels)
    notes = [*findings.warnings(), *check_levels(kept.inspections, kept.thumbs_NSS)]
    notes += [*check_labels(catalogue), *check_leakage(catalogue, duplicates)]
    notes += check_evenness(catalogue, config.data, own)
    files.write_json(report, {**findings.to_dict(), "notes": notes})
    for note in notes:
        console.say(UNIT, f"note: {note}")
    refuse_unlearnable(catalogue)
    keep_chips(run, kept)
    catalogue.write(run.path(UNIT, "catalogue.parquet"))
    parts = ", ".join(f"{len(catalogue.rows(s)):,} {s}" for s in ("train", "val", "test"))
    console.say(UNIT, f"catalogue written: {parts}")
    return catalogue


@dataclass(frozen=True)
class Decoded:
    """What decoding every image once gave.

    Attributes:
        inspections: N findings.
        hashes: N pixel hashes.
        thumbs_NSS: small grey versions, by which duplicates are found.
        chips_NHWC: the decoded chips, uint8; None when they are too many to keep.
        file: where they lie on this machine's disk already; None where they do not.
    """

    inspections: list[Inspection]
    hashes: list[bytes]
    thumbs_NSS: NDArray[np.float32]
    chips_NHWC: NDArray[np.uint8] | None
    file: Path | None

    def only(self, keep: NDArray[np.int64]) -> Decoded:
        """The rows in ``keep``, ascending."""
        if len(keep) == len(self.inspections):
            return self
        chips = None
        if self.file is not None:
            chips = keep_rows(self.file, keep)
        elif self.chips_NHWC is not None:
            chips = self.chips_NHWC[keep]
        parts = [self.inspections[n] for n in keep], [self.hashes[n] for n in keep]
        return Decoded(*parts, self.thumbs_NSS[keep], chips, self.file)


def mapped_place(run: RunDir) -> Path | None:
    """Where all processes can write decoded chips in place: a file of the run, when there is one machine."""
    cache = run.path(UNIT, "chips.npy")
    return Path(f"{cache}.part") if started_here() and not files.is_uri(cache) else None


def survey(chips_NHWC: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """By what equal and similar chips are found."""
    digests = np.frombuffer(b"".join(pixel_hashes(chips_NHWC)), np.uint8)
    return {"thumb": thumbnails(chips_NHWC), "digest": digests.reshape(len(chips_NHWC), -1)}


def decode(listing: Listing, config: DataConfig, console: Console, place: Path | None) -> Decoded:
    """Every image of the listing, read and decoded once, into the file ``place`` where it is given."""
    total, size, since, done = len(listing), config.image_size, time.monotonic(), 0
    fits = total * size * size * 3 <= config.max_cache_gb * 1e9
    chips_NHWC = None
    try:
        if fits and place is not None:
            chips_NHWC = room_for(place, total, size)
        elif fits:
            chips_NHWC = np.empty((total, size, size, 3), np.uint8)
    except RunDirError as error:
        console.say(UNIT, f"decoded chips are not kept, training decodes them anew: {error}")
        fits = False
    place = place if fits else None
    thumbs_NSS = np.empty((total, *thumbnails(np.zeros((1, size, size, 3), np.uint8)).shape[1:]), np.float32)
    inspections, hashes = [Inspection()] * total, [b""] * total
    blocks = decode_all(
        listing.uris, size, config.sensor, place=place, look=survey, images=fits and place is None
    )
    for batch, found in blocks:
        rows_n = batch["row"]
        if chips_NHWC is not None and place is None:
            chips_NHWC[rows_n] = batch["image"]
        thumbs_NSS[rows_n] = batch["thumb"]
        for row, inspection, digest in zip(rows_n, found, batch["digest"], strict=True):
            inspections[row], hashes[row] = inspection, digest.tobytes()
        done += len(found)
        console.count(UNIT, "images decoded", done, total, since)
    return Decoded(inspections, hashes, thumbs_NSS, chips_NHWC, place)


def keep_chips(run: RunDir, kept: Decoded) -> None:
    """Leave the decoded chips in ``chips.npy``, where there are any, and never those of an earlier start."""
    filesystem, goal = files.resolve(run.path(UNIT, "chips.npy"))
    if kept.chips_NHWC is None:
        if files.exists(run.path(UNIT, "chips.npy")):
            filesystem.delete_file(goal)
        return
    if kept.file is not None:
        kept.file.replace(goal)
        return
    with tempfile.TemporaryDirectory() as directory:
        local = Path(directory, "chips.npy")
        np.save(local, kept.chips_NHWC, allow_pickle=False)
        filesystem.create_dir(goal.rpartition("/")[0], recursive=True)
        here = fs.LocalFileSystem()
        fs.copy_files(str(local), goal, source_filesystem=here, destination_filesystem=filesystem)


def place_chips(run: RunDir, catalogue: Catalogue, config: DataConfig, console: Console, stage: str) -> Chips:
    """Share the decoded chips between all processes, or leave images to be decoded as they stream.

    Shared are chips that take no more than ``data.max_cache_gb``: on one machine the file is mapped; a
    cluster's nodes share through the object store, if they take no more than :data:`STORE_SHARE` of the
    smallest.

    Raises:
        RunDirError: when the file holds other chips than the catalogue.
    """
    size, uris, cache = config.image_size, UriList(catalogue.uris), run.path(UNIT, "chips.npy")
    needed = len(catalogue) * size * size * 3
    maps = started_here() and not files.is_uri(cache)
    stores = [n["Resources"].get("object_store_memory", 0) for n in ray.nodes() if n["Alive"]]  # type: ignore[no-untyped-call]
    room = STORE_SHARE * min(stores)
    why = ""
    if needed > config.max_cache_gb * 1e9:
        why = f"{needed / 1e9:.2f} GB decoded are more than data.max_cache_gb, {config.max_cache_gb:g}"
    elif not files.exists(cache):
        place = files.shown(run.path(UNIT))
        why = f"prepare did not keep the {needed / 1e9:.2f} GB decoded; to keep them, delete {place}"
    if not why and not maps and needed > room:
        why = f"{needed / 1e9:.2f} GB decoded do not fit {room / 1e9:.2f} GB of object store"
    if why:
        console.say(stage, f"chips are decoded as they stream ({why})")
        return Chips(size, uris, None, config.sensor, config.max_bad_fraction)
    if files.is_uri(cache):
        with tempfile.TemporaryDirectory() as directory:
            local = Path(directory, "chips.npy")
            local.write_bytes(files.read_bytes(cache))
            chips_NHWC = np.load(local, allow_pickle=False)
    else:
        chips_NHWC = mapped(cache)
    if chips_NHWC.shape != (len(catalogue), size, size, 3):
        problem = f"must hold {len(catalogue)} chips of {size} px"
        raise RunDirError(cache, problem, f"shape {chips_NHWC.shape}", "Delete prepare/ and run again.")
    where = "mapped into memory by all processes" if maps else "shared in the object store"
    console.say(stage, f"chips are {where} ({needed / 1e6:,.0f} MB, decoded once)")
    return Chips(size, uris, files.absolute(cache) if maps else ray.put(chips_NHWC))
