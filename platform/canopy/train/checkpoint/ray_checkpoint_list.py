"""Ray Train's list of checkpoints, ``checkpoint_manager_snapshot.json``: reading, copying and repairing it.

Ray Train copies a checkpoint into a separate directory and then adds it to its list. A directory that the
list does not name is ignored, so a copy that was interrupted is never resumed from. The list itself is
written in place and can be cut off; therefore a copy is kept in the same directory.

Ray Train's controller imports this module at every start, so it imports little.
"""

from __future__ import annotations

import json
import logging

from pyarrow import fs

from canopy.storage import files

SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Name that Ray Train gives to its list."""
SNAPSHOT_COPY = "checkpoints.json"
"""Name of our copy of it, in the same folder."""

logger = logging.getLogger(__name__)


def copy_snapshot(folder: str) -> None:
    """Copy the list to ``SNAPSHOT_COPY``.

    Args:
        folder: path or URI of one training in Ray Train's storage.

    Raises:
        OSError: when the list cannot be read, or the copy cannot be written.
        ValueError: when the list is not JSON; the copy then stays as it is.
    """
    data = files.read_bytes(files.join(folder, SNAPSHOT))
    json.loads(data)
    files.write_bytes(files.join(folder, SNAPSHOT_COPY), data)


def restore_snapshot(folder: str) -> None:
    """Replace a list that was cut off by its copy, or remove it when there is no copy.

    Ray Train cannot start with a list that was cut off. The copy names the checkpoints of the list before;
    Ray Train removes these only after the next list is complete.

    Args:
        folder: path or URI of one training in Ray Train's storage.
    """
    path, copy = files.join(folder, SNAPSHOT), files.join(folder, SNAPSHOT_COPY)
    if not files.exists(path):
        return
    try:
        json.loads(files.read_bytes(path))
    except ValueError as error:
        logger.warning("%s is damaged (%s) and is replaced by its copy", files.shown(path), error)
        if files.exists(copy):
            files.write_bytes(path, files.read_bytes(copy))
        else:  # it was the first list
            filesystem, inner = files.resolve(path)
            filesystem.delete_file(inner)


def remove_unlisted_checkpoints(filesystem: fs.FileSystem, folder: str) -> None:
    """Remove checkpoint directories that the list does not name: their copying was interrupted.

    Call it before the first report of a start; later a checkpoint may be on its way. A failure is logged and
    otherwise ignored.

    Args:
        filesystem: filesystem of Ray Train's storage.
        folder: path of one training in it.
    """
    try:
        listed = read_snapshot(filesystem, f"{folder}/{SNAPSHOT}")
        for entry in filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True)):
            if entry.is_file or not entry.base_name.startswith("checkpoint_"):
                continue
            if entry.base_name not in listed:
                filesystem.delete_dir(entry.path)
    except (OSError, ValueError) as error:
        logger.warning("Unfinished checkpoints in %s could not be removed: %s", folder, error)


def read_snapshot(filesystem: fs.FileSystem, path: str) -> str:
    """The text of the list at ``path``; empty when there is none.

    Raises:
        ValueError: when the list is not JSON, because it was cut off.
    """
    if filesystem.get_file_info(path).type == fs.FileType.NotFound:
        return ""
    with filesystem.open_input_stream(path) as stream:
        text = bytes(stream.read()).decode()
    json.loads(text)
    return text
