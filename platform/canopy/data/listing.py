"""Joins the labelled images of a source with the files that exist."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from canopy.bands import SEVERAL_FILES, BandLayout
from canopy.config import fingerprint
from canopy.data.label_cells import has_control_characters, refuse_control_characters
from canopy.errors import DataError, StorageError, nearest, refuse_credentials
from canopy.labels import LabelSet
from canopy.storage import files
from canopy.storage.local_files import BROKEN, FileState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from canopy.data.label_table import Entry

MB = 10**6


@dataclass(frozen=True)
class Listing:
    """N labelled images whose files exist.

    Attributes:
        ids: unique names.
        uris: path or URI of each image file; those of a chip whose bands lie in several are joined by
            :data:`~canopy.bands.SEVERAL_FILES`.
        tags: labels of each image; some may have none.
        labels: the label set: as configured, or every label that occurs, alphabetically.
        identity: 64 hex digits over ids, labels, file sizes and times of change.
        former_identity: the same without the times, as in run directories of earlier versions.
        arrangement: 64 hex digits over the order of the labels, the splits and the groups.
        bad: reason by id for rows that cannot be used: a repeated id, an unknown label, no file. They are in
            no other field.
        splits: "train", "val", "test" or "" per image; None where the source has no splits.
        groups: name of each image's group ("" for none); None where the source has no groups.
        notes: what the source left out on purpose, one sentence each.
    """

    ids: list[str]
    uris: list[str]
    tags: list[tuple[str, ...]]
    labels: LabelSet
    identity: str
    former_identity: str = ""
    arrangement: str = ""
    bad: dict[str, str] = field(default_factory=dict)
    splits: list[str] | None = None
    groups: list[str] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def identity_in(self, recorded: str | None) -> str:
        """The identity in the form that a run directory recorded.

        Args:
            recorded: identity in the run directory's ``data.json``; None where there is none.
        """
        return self.former_identity if recorded == self.former_identity != "" else self.identity


class SourceLocation(NamedTuple):
    """Where the images of a source are, and which of them count.

    Attributes:
        source: name of the source in errors.
        directory: folder of files whose paths are relative.
        names: the label set, in order; empty for every label that occurs.
        max_file_bytes: larger files are bad; they would not be decoded.
        timed: whether times of change are part of the identity; not for files that are generated again.
        layout: the bands of a chip, which may lie in several files; None for RGB.
    """

    source: str
    directory: str
    names: tuple[str, ...] = ()
    max_file_bytes: int = 400 * MB
    timed: bool = True
    layout: BandLayout | None = None


def join_with_files(
    entries: Sequence[Entry], place: SourceLocation, strays: Mapping[str, str] = MappingProxyType({})
) -> Listing:
    """Join the entries of a source with the files that exist.

    Args:
        entries: all images, in order.
        place: where they are.
        strays: reason by file for images that are not among the entries.

    Raises:
        DataError: when no image is left, none has a label, or a label holds control characters.
        InputError: when an address of an image holds credentials.
    """
    refuse_control_characters(place.source, [*place.names, *{tag for entry in entries for tag in entry.tags}])
    for entry in entries:
        refuse_credentials(f"{place.source}, {entry.where}", entry.file)
    uris = [_uris(place, entry) for entry in entries]
    states = _states(part for uri in uris for part in uri.split(SEVERAL_FILES))
    bad = _unusable(entries, uris, states, place)
    if len(bad) == len(entries):
        name, why = next(iter([*bad.values(), *strays.items()]))
        remedy = "Correct them, or data.images, data.extension and data.labels."
        raise DataError(f"{place.source}", "must name an image that can be used", f"{name}: {why}", remedy)
    good = [n for n in range(len(entries)) if n not in bad]
    kept = [entries[n] for n in good]
    if not any(entry.tags for entry in kept):
        raise DataError(place.source, "must give a label to some image", "none", "Check its label column.")
    kept_uris = [uris[n] for n in good]
    of_chip = [uri.split(SEVERAL_FILES) for uri in kept_uris]
    former = _identity(kept, [[states[uri].size for uri in uris] for uris in of_chip])
    changes = (
        [[part for uri in uris for part in (states[uri].size, _change(uri, states[uri]))] for uris in of_chip]
        if place.timed
        else None
    )
    labels = LabelSet(place.names) if place.names else LabelSet.of(entry.tags for entry in kept)
    return Listing(
        ids=[entry.id for entry in kept],
        uris=kept_uris,
        tags=[entry.tags for entry in kept],
        labels=labels,
        identity=former if changes is None else _identity(kept, changes),
        former_identity=former,
        arrangement=fingerprint(labels.names, [(entry.split, entry.group) for entry in kept]),
        bad={**dict(bad.values()), **strays},
        splits=[entry.split for entry in kept] if any(entry.split for entry in kept) else None,
        groups=[entry.group for entry in kept] if any(entry.group for entry in kept) else None,
    )


def _identity(entries: Sequence[Entry], parts: Iterable[Sequence[int | str]]) -> str:
    """Hash over the ids and labels, and over what is known of each file."""
    total = hashlib.sha256()
    for entry, part in zip(entries, parts, strict=True):
        total.update(json.dumps([entry.id, sorted(entry.tags), *part]).encode())
    return total.hexdigest()


def _change(uri: str, state: FileState) -> int | str:
    """Time of a file's last change, or a hash of its content where the storage keeps no times."""
    if state.modified_ns is not None:
        return state.modified_ns
    return hashlib.sha256(files.read_bytes(uri)).hexdigest()


def _unusable(
    entries: Sequence[Entry], uris: Sequence[str], states: Mapping[str, FileState], place: SourceLocation
) -> dict[int, tuple[str, str]]:
    """Name and reason of each entry that cannot be used, by its number."""
    out: dict[int, tuple[str, str]] = {}
    first: dict[str, int] = {}
    known = set(place.names)
    example = ""
    for n, entry in enumerate(entries):
        unknown = next((tag for tag in entry.tags if known and tag not in known), None)
        before = first.setdefault(entry.id, n)
        if has_control_characters(entry.id):
            out[n] = (ascii(entry.id), "its name holds control characters")
        elif before != n:
            other = entries[before].where or f"row {before + 1}"
            out[n] = (f"{entry.id} ({entry.where or f'row {n + 1}'})", _repeated(entry, other))
        elif unknown is not None:
            out[n] = (entry.id, f"{unknown!r} is not in data.labels ({nearest(unknown, place.names)[:-1]})")
        elif missing := [uri for uri in uris[n].split(SEVERAL_FILES) if uri not in states]:
            hint = "" if example else _some_file(place.directory)  # one example is enough
            example = example or hint
            holds = f" ({place.directory} holds {hint})" if hint else ""
            out[n] = (entry.id, f"there is no file {files.shown(missing[0])}{holds}")
        elif (size := max(states[uri].size for uri in uris[n].split(SEVERAL_FILES))) > place.max_file_bytes:
            limit = f"data.max_image_mb ({place.max_file_bytes / MB:,.0f})"
            out[n] = (entry.id, f"the file has {size / MB:,.0f} MB, more than {limit}")
    return out


def _repeated(entry: Entry, other: str) -> str:
    """The reason for an entry whose id another one has had before; ``other`` is its place."""
    if entry.where == entry.file:  # its place is the file itself: no table names it
        return f"{other} has the same name but for its ending; rename or remove one of the two files"
    return (
        f"{other} names the same image; merge the labels of both into one row "
        "(raising data.max_bad_fraction drops this row's labels)"
    )


def _some_file(directory: str) -> str:
    """Name of a file in ``directory``, as an example."""
    found = files.list_files(directory, recursive=True).items()
    return next((name for name, size in found if size != BROKEN and not is_hidden(name)), "no file")


def is_hidden(file: str) -> bool:
    """Whether a file belongs to a program (thumbnails, the extras of macOS archives) and is no image."""
    return any(part.startswith((".", "__MACOSX")) for part in file.split("/"))


def _uris(place: SourceLocation, entry: Entry) -> str:
    """Address of a chip's file; of all its files where its bands lie in several."""
    uri = _uri(place.directory, entry.file)
    if place.layout is None:
        return uri
    named = {column: _uri(place.directory, file) for column, file in entry.band_files}
    return place.layout.addresses(uri, named)


def _uri(directory: str, file: str) -> str:
    if files.is_uri(file):
        return file
    if file.startswith("/"):
        return str(Path(file))
    return files.join(directory, *(part for part in file.split("/") if part != "."))  # find writes ./a.jpg


def _states(uris: Iterable[str]) -> dict[str, FileState]:
    """State of each file that exists; one listing per folder."""
    out: dict[str, FileState] = {}
    for folder in dict.fromkeys(files.parent(uri)[0] for uri in uris):
        try:
            found = files.list_states(folder)
        except StorageError:
            raise
        except OSError:  # missing, or impossible: a file in place of a folder, a name that is too long
            continue
        out |= {files.join(folder, name): state for name, state in found.items() if state.size != BROKEN}
    return out
