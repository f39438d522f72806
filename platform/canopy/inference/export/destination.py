"""The directory that an export writes: checked before anything starts, complete or not there at all."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow import fs

from canopy.errors import ConfigError
from canopy.storage import files

RECORD = "export.json"


def check_destination(to: str) -> None:
    """Refuse a directory that holds something, or whose place cannot be written.

    Raises:
        ConfigError: naming the problem.
        StorageError: when the object store refuses.
    """
    if files.exists(to):
        if not files.is_dir(to):
            got = f"the file {files.shown(to)}"
            raise ConfigError("--to", "must be a directory that does not exist yet", got, "Choose another.")
        held = next(iter(files.list_files(to, recursive=True)), None)
        if held is not None:
            got = f"{files.shown(to)} with {held}"
            remedy = "Choose another, or delete it."
            raise ConfigError("--to", "must not exist, or be empty", got, remedy)
    probe = files.join(files.parent(files.absolute(to))[0], f".{uuid.uuid4().hex[:12]}")
    try:
        files.write_bytes(probe, b"")
        files.delete(probe)
    except OSError as error:
        if files.is_uri(to):
            raise
        need, remedy = (
            "must lie where files can be written",
            "Choose another place, or correct its permissions.",
        )
        raise ConfigError("--to", need, f"{to} ({error.strerror or error})", remedy) from None


@contextmanager
def building(to: str) -> Iterator[Path]:
    """A temporary directory that becomes ``to`` at the end of the block, and vanishes after an error.

    A local directory is renamed; to an object store the files are copied, ``export.json`` last.
    """
    target = Path(files.absolute(to)) if not files.is_uri(to) else None
    parent = None if target is None else target.parent
    with tempfile.TemporaryDirectory(prefix=".export-", dir=parent, ignore_cleanup_errors=True) as folder:
        out = Path(folder, "out")
        out.mkdir()
        yield out
        if target is not None:
            out.replace(target)
            return
        filesystem, inner = files.resolve(to)
        here = fs.LocalFileSystem()
        names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
        for name in [*(name for name in names if name != RECORD), RECORD]:
            with files.store_errors(to):
                fs.copy_files(
                    str(out / name),
                    f"{inner}/{name}",
                    source_filesystem=here,
                    destination_filesystem=filesystem,
                )
