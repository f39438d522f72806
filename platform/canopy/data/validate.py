"""What is wrong with a data set, found before any training is paid for.

Pure checks over a listing and what decoding told of each image. The decoding itself runs elsewhere, in
parallel; each image gives one :class:`Inspection`.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from canopy.config import SensorConfig, allowed_count
from canopy.data.duplicates import Duplicates
from canopy.data.raster.decode import PLAIN, UnreadableImage, decode
from canopy.errors import DataError

if TYPE_CHECKING:
    from canopy.data.catalogue import Catalogue
    from canopy.data.sources import Listing

LARGE_GROUP = 50
"""Duplicates of which people should know that they are never parted."""
DARK = 48
"""Of 255: sunlit ground is brighter."""


class Inspection(NamedTuple):
    """What decoding one image told; ``problem`` is empty when it is readable."""

    mode: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Validation:
    """The findings; everything in it can be written as JSON.

    Attributes:
        rows: how many images the labels name, missing ones included.
        bad: reason by id, of each image that is missing or unreadable, stands twice, or has an unknown label.
        sizes: how many images have which size ("256x256"), the most frequent first.
        modes: how many images have which mode, the most frequent first.
        unusual: how it differs from the most frequent size and mode, by id, of those that do.
        unlabelled: how many images have no label.
        positives: images per label, bad ones left out.
        together: images that have both labels, by label and label.
        exclusive: pairs of labels that never occur together, though chance would have it often.
        contradictions: pairs of labels that hardly ever do, with the ids of the images where they do.
        suspects: pairs of label names (rare, frequent) that may be one label, written in two ways.
        duplicates: what is there more than once; None when it was not looked for.
    """

    rows: int
    bad: dict[str, str]
    sizes: dict[str, int]
    modes: dict[str, int]
    unusual: dict[str, str]
    unlabelled: int
    positives: dict[str, int]
    together: dict[str, dict[str, int]]
    exclusive: list[tuple[str, str]]
    contradictions: list[tuple[str, str, list[str]]]
    suspects: list[tuple[str, str]]
    duplicates: Duplicates | None = None

    def to_dict(self) -> dict[str, Any]:
        """The findings as JSON-able values."""
        return asdict(self)

    def warnings(self) -> list[str]:
        """What a person should know before training, a sentence each; empty for a clean data set."""
        out = []
        if self.bad:
            out.append(f"{len(self.bad)} of {self.rows} images are left out: {_some(self.bad)}.")
        if self.unusual:
            usual = f"{next(iter(self.sizes))} {next(iter(self.modes))}"
            named = _some(f"{name} ({how})" for name, how in self.unusual.items())
            out.append(f"Not all images are {usual}: {named}.")
        if self.unlabelled:
            out.append(f"{self.unlabelled} images have no label at all; they count as having none of them.")
        for rare, frequent in self.suspects:
            counts = f"{self.positives[rare]} and {self.positives[frequent]} images"
            out.append(f"The labels {rare!r} and {frequent!r} ({counts}) may be one, written in two ways.")
        for a, b, names in self.contradictions:
            out.append(f"{a} and {b} exclude each other everywhere but in {_some(names)}.")
        if self.duplicates is not None:
            out.extend(self._duplicate_warnings(self.duplicates))
        return out

    def _duplicate_warnings(self, found: Duplicates) -> list[str]:
        out = []
        if found.blank:
            out.append(f"{len(found.blank)} images are of one single colour: {_some(found.blank)}.")
        if found.equal:
            groups = _some(" = ".join(group) for group in found.equal)
            out.append(f"{len(found.equal)} groups of images are equal, pixel for pixel: {groups}.")
        if found.near:
            pairs = _some(f"{a} ~ {b}" for a, b, _ in found.near)
            out.append(f"{len(found.near)} pairs of images show the same: {pairs}.")
        shown = list(dict.fromkeys(name for pair in found.pairs() for name in pair))
        groups_N, sizes = np.unique(found.groups(shown), return_counts=True)
        if len(sizes) and sizes.max() >= LARGE_GROUP:
            first = groups_N[sizes.argmax()]
            out.append(
                f"{sizes.max()} images hang together as duplicates, each with another ({first} and on): "
                "they go to one part as a whole."
            )
        if found.disagreeing:
            pairs = _some(f"{a}, {b}" for a, b in found.disagreeing)
            out.append(f"{len(found.disagreeing)} pairs of duplicates have different labels: {pairs}.")
        return out


def refuse_bad(bad: Mapping[str, str], rows: int, max_bad_fraction: float, report: str) -> None:
    """Stop when too many images are bad.

    Args:
        bad: reason by id.
        rows: how many images there are, bad ones included.
        max_bad_fraction: the share of them that may be bad; never all.
        report: where all of them stand.

    Raises:
        DataError: naming the first offenders with their reasons.
    """
    if len(bad) <= allowed_count(max_bad_fraction, rows) and len(bad) < rows:
        return
    first = "; ".join(f"{name}: {why}" for name, why in list(bad.items())[:5])
    raise DataError(
        "Images that cannot be used",
        f"must be at most {max_bad_fraction:.4g} of all (data.max_bad_fraction)",
        f"{len(bad)} of {rows}, first {first}",
        f"Repair or remove them ({report} names all), correct data.*, or raise data.max_bad_fraction.",
    )


def inspect_image(
    data: bytes, size: int, sensor: SensorConfig = PLAIN, into: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.uint8], Inspection]:
    """The chip of shape (size, size, 3) and what the file was; a black chip and the reason when bad.

    The chip is written to ``into`` where that is given.
    """
    into = np.empty((size, size, 3), np.uint8) if into is None else into
    try:
        decoded = decode(data, size, sensor, into)
    except UnreadableImage as error:
        into[:] = 0
        return into, Inspection(problem=error.why)
    return decoded.pixels, Inspection(decoded.mode, decoded.width, decoded.height)


def validate(
    listing: Listing, inspections: Sequence[Inspection], duplicates: Duplicates | None = None
) -> Validation:
    """Put all findings together; ``inspections`` holds one entry per row of ``listing``."""
    assert len(inspections) == len(listing)
    bad = listing.bad | {
        name: seen.problem for name, seen in zip(listing.ids, inspections, strict=True) if seen.problem
    }
    good = [n for n, seen in enumerate(inspections) if not seen.problem]
    ids = [listing.ids[n] for n in good]
    seen = [inspections[n] for n in good]
    sizes = Counter(f"{one.width}x{one.height}" for one in seen).most_common()
    modes = Counter(one.mode for one in seen).most_common()
    targets_NK = listing.labels.encode([listing.tags[n] for n in good])
    names = listing.labels.names
    together_KK = targets_NK.T.astype(np.int64) @ targets_NK
    positives = dict(zip(names, together_KK.diagonal().tolist(), strict=True))
    exclusive, contradictions = exclusive_pairs(names, targets_NK, ids)
    return Validation(
        rows=len(listing) + len(listing.bad),
        bad=bad,
        sizes=dict(sizes),
        modes=dict(modes),
        unusual=_unusual(ids, seen, {key for counts in (sizes, modes) for key, _ in counts[:1]}),
        unlabelled=int((targets_NK.sum(1) == 0).sum()),
        positives=positives,
        together={a: dict(zip(names, together_KK[k].tolist(), strict=True)) for k, a in enumerate(names)},
        exclusive=exclusive,
        contradictions=contradictions,
        suspects=suspect_names(positives),
        duplicates=duplicates,
    )


def _unusual(ids: Sequence[str], seen: Sequence[Inspection], usual: set[str]) -> dict[str, str]:
    out: dict[str, str] = {}
    for name, one in zip(ids, seen, strict=True):
        odd = [what for what in (f"{one.width}x{one.height}", one.mode) if what not in usual]
        if odd:
            out[name] = ", ".join(odd)
    return out


def suspect_names(positives: dict[str, int]) -> list[tuple[str, str]]:
    """Pairs (rare, frequent) of names so alike that the rare one may be a misspelling of the other.

    Alike: equal but for case, spaces, ``-`` and ``_``; or at least 0.85 of their letters in common
    sequence (difflib's ratio) while one is twenty times as frequent as the other.
    """
    plain = {name: name.lower().translate(str.maketrans("", "", " -_")) for name in positives}
    pairs = []
    names = sorted(positives, key=lambda name: positives[name])
    for n, rare in enumerate(names):
        for frequent in names[n + 1 :]:
            same = plain[rare] == plain[frequent]
            lopsided = positives[frequent] >= 20 * max(positives[rare], 1)
            alike = difflib.SequenceMatcher(None, plain[rare], plain[frequent]).ratio() >= 0.85
            if same or (lopsided and alike):
                pairs.append((rare, frequent))
    return pairs


def exclusive_pairs(
    names: Sequence[str], targets_NK: NDArray[np.uint8], ids: Sequence[str]
) -> tuple[list[tuple[str, str]], list[tuple[str, str, list[str]]]]:
    """Pairs of labels that never occur together, and pairs that hardly ever do with the ids where they do.

    Never: though independence would have at least ten images do so (by Poisson, a chance of e^-10).
    Hardly ever: in at most one of a hundred of the images where independence would.
    """
    together_KK = targets_NK.T.astype(np.int64) @ targets_NK
    positives_K = together_KK.diagonal()
    expected_KK = np.outer(positives_K, positives_K) / max(len(ids), 1)
    never, hardly = [], []
    for a, b in np.argwhere(np.triu((together_KK <= expected_KK / 100) & (expected_KK >= 10), 1)).tolist():
        if together_KK[a, b] == 0:
            never.append((names[a], names[b]))
        else:
            rows = np.flatnonzero(targets_NK[:, a] & targets_NK[:, b])
            hardly.append((names[a], names[b], [ids[n] for n in rows.tolist()]))
    return never, hardly


def refuse_unlearnable(catalogue: Catalogue) -> None:
    """Stop when a network would never see some label.

    Raises:
        DataError: when training, or the training of one fold's model, would see no positive of a label.
    """
    parts = {"train": catalogue.rows("train")}
    if catalogue.folds > 1:
        for fold in range(catalogue.folds):
            parts[f"train without fold {fold}"] = catalogue.rows("train", not_fold=fold)
    for part, rows in parts.items():
        for name, count in catalogue.counts(rows).items():
            if count == 0:
                raise DataError(
                    f"The label {name}",
                    f"must have a positive in {part}",
                    f"0 in {len(rows)} rows",
                    "Add images of it, remove the label, use fewer folds, or raise data.limit.",
                )


def check_labels(catalogue: Catalogue) -> list[str]:
    """Warnings, one sentence each, about labels too rare for the splits and folds."""
    warnings = []
    for name, count in catalogue.counts(catalogue.rows("train")).items():
        if count < catalogue.folds:
            held_out = f"some of the {catalogue.folds} folds hold out none and cannot be scored for it"
            warnings.append(f"{name} has only {count} positives in train: {held_out}.")
    for split in ("val", "test"):
        for name, count in catalogue.counts(catalogue.rows(split)).items():
            if count == 0:
                warnings.append(f"{name} has no positive in {split}: its score there is undefined.")
    return warnings


def check_levels(inspections: Sequence[Inspection], thumbs_NSS: NDArray[np.float32]) -> list[str]:
    """A warning when images of 16 bits come out so dark that their levels cannot have been meant."""
    deep = [n for n, seen in enumerate(inspections) if "16" in seen.mode]
    if not deep or (brightest := float(thumbs_NSS[deep].max())) >= DARK:
        return []
    black = f"{len(deep)} images of 16 bits are nearly black, {brightest:.0f} of 255 at most"
    return [f"{black}: set data.sensor.white to the highest value that matters."]


def check_leakage(catalogue: Catalogue, duplicates: Duplicates) -> list[str]:
    """Warnings, one sentence each, about duplicates and groups on two sides of a split or of a fold.

    Groups (a scene) are torn only where the table brings splits of its own.
    """
    part = {
        name: f"{split} {fold}" if split == "train" else str(split)
        for name, split, fold in zip(catalogue.ids, catalogue.split, catalogue.fold, strict=True)
    }
    pairs = [(a, b) for a, b in duplicates.pairs() if a in part and b in part and part[a] != part[b]]
    group = dict(zip(catalogue.ids, catalogue.group.tolist(), strict=True))
    sides: dict[str, set[str]] = {}
    for name, side in part.items():
        sides.setdefault(group[name], set()).add(side)
    told = {group[a] for a, _ in pairs}
    torn = [first for first, of in sides.items() if len(of) > 1 and first not in told]
    scenes = f"Groups have images on two sides of a split: {len(torn)}, those of {_some(torn)}."
    return [scenes] * bool(torn) + [
        f"{a} ({part[a]}) and {b} ({part[b]}) are duplicates on two sides of a split." for a, b in pairs
    ]


def _some(names: Iterable[str], count: int = 5) -> str:
    """The first few, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
