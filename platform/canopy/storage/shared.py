"""Whether every node of a cluster sees the files of a run, found out before the run starts.

The driver writes a file into each directory, every node reads it and writes one of its own, and the driver
reads those. A directory that is only read, such as a data set, is compared by some of its entries. On one
node there is nothing to find out.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyarrow import fs

from canopy.errors import CanopyError, ConfigError
from canopy.storage import files

if TYPE_CHECKING:
    from canopy.runtime.nodes import Node

PREFIX = ".canopy-probe"
"""Start of the names of the files of a probe."""
FROM_DRIVER = "driver"
SAMPLE = 8
"""Entries of a directory that a node must find."""
ATTEMPTS = 4
"""Looks at a file: a network file system may show a new one after a moment."""
PAUSE_S = 0.5
"""Seconds between two looks."""


@dataclass(frozen=True)
class Place:
    """A directory that the nodes must share.

    Args:
        option: name of the option that gives it.
        path: path or URI.
        written: whether nodes write to it, or only read.
    """

    option: str
    path: str
    written: bool


@dataclass(frozen=True)
class Evidence:
    """What the driver knows of a place and a node must find there.

    Args:
        place: the directory.
        token: content of the driver's file; unique to this probe. Empty for a place that is only read.
        sizes: size in bytes of some entries by name, -1 for a directory, of a local place that is only read.
    """

    place: Place
    token: str
    sizes: Mapping[str, int]

    @classmethod
    def leave(cls, place: Place) -> Evidence | None:
        """Write the driver's file, or take the sample; None where the driver itself finds no directory.

        Raises:
            StorageError: when the object store refuses, or the disk is full or fails.
        """
        if place.written:
            evidence = cls(place, uuid.uuid4().hex, {})
            files.write_bytes(evidence.file(FROM_DRIVER), evidence.token.encode())
            return evidence
        if not files.is_dir(place.path):
            return None
        directory = local_directory(place.path)
        return cls(place, "", entry_sizes(directory, SAMPLE) if directory else {})

    def file(self, name: str) -> str:
        """Path of a file of this probe."""
        return files.join(self.place.path, f"{PREFIX}-{self.token}-{name}")

    def problem_on(self, name: str) -> str | None:
        """On a node: look at the place, and answer with a file where nodes write.

        Args:
            name: of the node's file.

        Returns:
            What the node did not find or could not do, as the end of a sentence; None where all is well.
        """
        problem = first_success(self._problem_of_reading)
        if problem is None and self.token:
            try:
                files.write_bytes(self.file(name), self.token.encode())
            except (OSError, CanopyError) as error:
                return f"cannot write there ({reason(error)})"
        return problem

    def problem_of_answer(self, name: str) -> str | None:
        """In the driver: read the file of a node."""
        if not self.token:
            return None
        lost = "writes to another place under that name"
        return first_success(lambda: unread(self.file(name), self.token, lost))

    def remove(self, names: Iterable[str]) -> None:
        """Delete the files of this probe: the driver's and those of the nodes with ``names``."""
        if not self.token:
            return
        for name in (FROM_DRIVER, *names):
            files.delete(self.file(name))

    def _problem_of_reading(self) -> str | None:
        if self.token:
            return unread(self.file(FROM_DRIVER), self.token, "does not see what this job wrote there")
        directory = local_directory(self.place.path)
        try:
            if not files.is_dir(self.place.path):
                return "has no such directory"
            missing = directory and first_difference(directory, self.sizes)
        except (OSError, CanopyError) as error:
            return f"cannot read there ({reason(error)})"
        return f"finds another directory under that name, without this job's {missing}" if missing else None


class _Look:
    """Task: the problem of a node with each place."""

    def __init__(self, evidence: Sequence[Evidence]) -> None:
        self._evidence = evidence

    def __call__(self, node: Node) -> list[str | None]:
        return [one.problem_on(node.id) for one in self._evidence]


class SharedStorage:
    """Checks that all nodes share the places of a run; each node is checked once.

    Args:
        places: the directories.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places
        self._checked: set[str] = set()

    def check(self) -> None:
        """Check the nodes that have joined since the last call; a single node needs no check.

        Raises:
            ConfigError: when a node does not share a place; names both.
            StorageError: when the object store refuses, or the disk is full or fails.
            ClusterError: when a node does not answer.
        """
        from canopy.runtime.nodes import alive_nodes, call_on_nodes

        nodes = alive_nodes()
        new = [node for node in nodes if node.id not in self._checked]
        if len(nodes) < 2 or not new:
            return
        evidence: list[Evidence] = []
        try:
            for place in self._places:
                left = Evidence.leave(place)
                evidence += [left] if left else []
            found = call_on_nodes(_Look(evidence), new)
            for number, one in enumerate(evidence):
                answers = [
                    (node.address, problems[number] or one.problem_of_answer(node.id))
                    for node, problems in found.items()
                ]
                refuse_unshared(one.place, answers)
        finally:
            for one in evidence:
                one.remove(node.id for node in new)
        self._checked |= {node.id for node in found}


def refuse_unshared(place: Place, answers: Iterable[tuple[str, str | None]]) -> None:
    """Refuse a place that a node does not share.

    Args:
        place: the directory.
        answers: address of each node, and what it did not find; None where all is well. Nodes may have the
            same address.

    Raises:
        ConfigError: names the first such node, the path and the remedy.
    """
    bad = [(address, problem) for address, problem in answers if problem]
    if not bad:
        return
    (address, problem), others = bad[0], len(bad) - 1
    more = f"; {others} more node(s) likewise" if others else ""
    need = "must be on storage that all nodes of the cluster share"
    remedy = "Give a directory of a file system that all nodes mount, or the URI of an object store (s3://…)."
    if files.is_uri(place.path) and local_directory(place.path) is None:
        need = f"must be {'readable and writable' if place.written else 'readable'} on all nodes"
        remedy = "Check the bucket's name, and the role or the credentials of that node."
    got = f"{files.shown(place.path)}, but node {address} {problem}{more}"
    raise ConfigError(place.option, need, got, remedy)


def first_success(problem: Callable[[], str | None]) -> str | None:
    """None as soon as one of ``ATTEMPTS`` looks finds no problem, else the last problem."""
    found = problem()
    for _ in range(ATTEMPTS - 1):
        if found is None:
            break
        time.sleep(PAUSE_S)
        found = problem()
    return found


def unread(path: str, token: str, lost: str) -> str | None:
    """None where the file holds ``token``, ``lost`` where it is missing, else why it cannot be read."""
    try:
        return None if files.read_bytes(path) == token.encode() else lost
    except (FileNotFoundError, NotADirectoryError):
        return lost
    except (OSError, CanopyError) as error:
        return f"cannot read there ({reason(error)})"


def local_directory(path: str) -> Path | None:
    """The directory on a file system of this machine; None for an object store."""
    filesystem, inner = files.resolve(path)
    return Path(inner) if isinstance(filesystem, fs.LocalFileSystem) else None


def entry_sizes(directory: Path, count: int) -> dict[str, int]:
    """Sizes in bytes of up to ``count`` entries of a directory by name; -1 for what is not a file."""
    sizes: dict[str, int] = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            if len(sizes) == count:
                break
            if not entry.name.startswith("."):
                sizes[entry.name] = entry.stat().st_size if entry.is_file() else -1
    return sizes


def first_difference(directory: Path, sizes: Mapping[str, int]) -> str | None:
    """The first name of ``sizes`` that is missing in the directory or has another size; None: all agree."""
    for name, size in sizes.items():
        path = directory / name
        if not path.exists() or (path.stat().st_size if path.is_file() else -1) != size:
            return name
    return None


def reason(error: BaseException) -> str:
    """An exception in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
