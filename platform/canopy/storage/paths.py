"""Parts of local paths and URIs: pure functions of their text.

A local path is taken literally. The path of a URI is also literal (no percent-decoding); only a trailing
query is split off: ``s3://bucket/runs?region=eu-west-1``.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

QUERY = re.compile(r"\?(?:\w+=[^&?]*(?:&\w+=[^&?]*)*&?)?$")
"""The query of a URI; an empty one (a final ``?``) ends a path that would otherwise seem to hold a query."""


def is_uri(path: str) -> bool:
    """Whether ``path`` has the form ``scheme://…``; otherwise it is a path of the local disk."""
    return "://" in path


def split_query(uri: str) -> tuple[str, str]:
    """``uri`` without its query, and the query with its question mark; a file URI has none."""
    found = None if uri.startswith("file://") else QUERY.search(uri)
    return (uri[: found.start()], found.group()) if found else (uri, "")


def join(root: str, *parts: str) -> str:
    """``root`` extended by ``parts``, before the query of a URI."""
    if not is_uri(root):
        return str(Path(root, *parts))
    location, query = split_query(root)
    extended = posixpath.join(location, *parts)
    if not query and not extended.startswith("file://") and QUERY.search(extended):
        query = "?"  # the last part contains a question mark
    return extended + query


def parent(path: str) -> tuple[str, str]:
    """The directory of ``path``, with the query of a URI, and the name within it."""
    location, query = split_query(path) if is_uri(path) else (path, "")
    directory, _, name = location.rpartition("/")
    return directory + query, name


def suffix(path: str) -> str:
    """The last extension of the file's name, lower case, with its dot; empty for a name without one."""
    return posixpath.splitext(parent(path)[1])[1].lower()


def stem(path: str) -> str:
    """The file's name without its last extension."""
    return posixpath.splitext(parent(path)[1])[0]
