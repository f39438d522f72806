"""Names of tasks, actors and data sets that say in Ray's dashboard whose they are."""

from __future__ import annotations

from collections.abc import Mapping

from canopy.runtime.logging import current_context

RUN_LENGTH = 60
"""Characters of a run directory's name in a task's name; longer ones lose their beginning."""


def task_name(what: str, fields: Mapping[str, str] | None = None) -> str:
    """``what`` with its owner: ``decode first resnet fold 0 rank 1``, ``first`` being the run directory.

    The name is printable ASCII: Ray Data's metrics have it as a tag.

    Args:
        what: name of the work.
        fields: as of :func:`canopy.runtime.logging.current_context`; None takes those of the current block.
    """
    fields = current_context() if fields is None else fields
    words = [what, run_name(fields.get("run", "")), fields.get("variant", "")]
    words += [f"{name} {fields[name]}" for name in ("fold", "rank") if name in fields]
    return ascii_text(" ".join(filter(None, words)))


def run_name(root: str) -> str:
    """The last part of a run directory's path or URI, with at most ``RUN_LENGTH`` characters."""
    return root.rstrip("/").rpartition("/")[2][-RUN_LENGTH:]


def ascii_text(value: str) -> str:
    r"""``value`` in printable ASCII, the only characters that Ray accepts in tags: ``ü`` becomes ``\xfc``."""
    return value.encode("unicode_escape").decode("ascii")
