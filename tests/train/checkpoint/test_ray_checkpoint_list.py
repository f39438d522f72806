"""Ray Train's list of checkpoints: copied and repaired, and checkpoints that it does not name removed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from pyarrow import fs
from tests.support import read_json

from canopy.train.checkpoint.ray_checkpoint_list import (
    SNAPSHOT,
    SNAPSHOT_COPY,
    copy_snapshot,
    remove_unlisted_checkpoints,
    restore_snapshot,
)

LOCAL = fs.LocalFileSystem()


def test_a_list_that_was_cut_off_is_replaced_by_its_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "canopy")
    restore_snapshot(str(tmp_path))  # without a list nothing happens
    (tmp_path / SNAPSHOT).write_text('{"whole": 1}')
    (tmp_path / SNAPSHOT_COPY).write_text('{"before": 1}')
    restore_snapshot(str(tmp_path))
    assert read_json(tmp_path / SNAPSHOT) == {"whole": 1}
    assert not caplog.records
    for torn in ("", '{"whole"'):
        (tmp_path / SNAPSHOT).write_text(torn)
        restore_snapshot(str(tmp_path))
        assert read_json(tmp_path / SNAPSHOT) == {"before": 1}
    assert "is damaged" in caplog.text
    (tmp_path / SNAPSHOT_COPY).unlink()
    (tmp_path / SNAPSHOT).write_text("")
    restore_snapshot(str(tmp_path))
    assert not (tmp_path / SNAPSHOT).exists()


def test_only_a_complete_list_is_copied(tmp_path: Path) -> None:
    (tmp_path / SNAPSHOT).write_text('{"first": 1}')
    copy_snapshot(str(tmp_path))
    (tmp_path / SNAPSHOT).write_text('{"second')
    with pytest.raises(ValueError, match="Unterminated string"):
        copy_snapshot(str(tmp_path))
    assert read_json(tmp_path / SNAPSHOT_COPY) == {"first": 1}


def test_checkpoints_that_the_list_does_not_name_are_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "canopy")
    for name in ("checkpoint_a", "checkpoint_b", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / SNAPSHOT).write_text('{"checkpoint_results": [{"checkpoint_dir_name": "chec')
    remove_unlisted_checkpoints(LOCAL, str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 4, "with a damaged list nothing is removed"
    assert "could not be removed" in caplog.text
    (tmp_path / SNAPSHOT).write_text('{"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_b"}]}')
    remove_unlisted_checkpoints(LOCAL, str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint_b", "other", SNAPSHOT}
    remove_unlisted_checkpoints(LOCAL, str(tmp_path / "absent"))
