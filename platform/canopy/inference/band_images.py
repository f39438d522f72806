"""The chips of several bands in a directory: found by the file patterns of ``data.bands``, read backwards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from canopy.bands import BandLayout

ID = "{id}"


class FoundChips(NamedTuple):
    """Chips of a directory.

    Attributes:
        paths: path of each chip by its name; both are relative to the directory.
        sizes: bytes of the files of each chip that were found, by their path, in the order of the names.
    """

    paths: dict[str, str]
    sizes: dict[str, list[tuple[str, int]]]


def has_patterns(layout: BandLayout) -> bool:
    """Whether a chip is found by the names of its files: a pattern with ``{id}``, and no file at its path."""
    patterns = [pattern for pattern, _ in layout.files]
    return None not in patterns and any(ID in pattern for pattern in patterns if pattern is not None)


def chips_by_pattern(files: Mapping[str, int], layout: BandLayout) -> FoundChips:
    """Chips whose files are among ``files``; one of its files is enough, so that others are found missing.

    A chip is named as its path without an extension: ``TILE/PATCH`` for ``TILE/PATCH/PATCH_B02.tif`` and
    the pattern ``{id}/{id}_B02.tif``.

    Args:
        files: bytes by path, relative to the directory.
        layout: the bands, with :func:`has_patterns`.
    """
    written = [pattern for pattern, _ in layout.files if pattern is not None and ID in pattern]
    # The longest first: of {id}.tif and {id}_nir.tif, 7_nir.tif is the second file of 7.
    patterns = [_expression(pattern) for pattern in sorted(written, key=_own_letters, reverse=True)]
    found: dict[str, list[tuple[str, int]]] = {}
    for path in sorted(files):
        for pattern in patterns:
            match = pattern.fullmatch(path)
            if match is not None:
                found.setdefault(match["folder"] + match["id"], []).append((path, files[path]))
                break
    names = sorted(found)
    # A chip's path has an extension; without one, the text after a dot in its name would count as one.
    paths = {name: f"{name}." if "." in name.rpartition("/")[2] else name for name in names}
    return FoundChips(paths, {name: found[name] for name in names})


def _own_letters(pattern: str) -> int:
    return len(pattern.replace(ID, ""))


def _expression(pattern: str) -> re.Pattern[str]:
    first, *others = map(re.escape, pattern.split(ID))
    return re.compile("(?P<folder>(?:.*/)?)" + first + "(?P<id>[^/]+)" + "(?P=id)".join(others))
