"""Run directories: a mark vouches for the very files that were written before it, and for no others."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from canopy.config import Experiment
from canopy.errors import RunDirError
from canopy.storage import files
from canopy.storage.run_dir import RunDir

TRAINING = "train/resnet/fold0"


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir(str(tmp_path / "run"))


def write_outputs(run_dir: RunDir, content: bytes) -> list[str]:
    names = ["weights.safetensors", "test.parquet"]
    for name in names:
        files.write_bytes(run_dir.path(TRAINING, name), name.encode() + content)
    return names


def test_a_directory_is_done_for_its_fingerprint_only(run_dir: RunDir) -> None:
    assert run_dir.done("prepare", "aa") is None
    written = run_dir.finish("prepare", "aa", seconds=3.5)
    assert run_dir.done("prepare", "aa") == written
    assert written.facts == {"seconds": 3.5}
    assert run_dir.done("prepare", "bb") is None
    assert files.read_json(run_dir.path("prepare", "done.json")) == {"fingerprint": "aa", "seconds": 3.5}


def test_a_mark_of_an_earlier_version_is_trusted(run_dir: RunDir) -> None:
    files.write_json(run_dir.path("train", "done.json"), {"fingerprint": "aa", "seconds": 1.0, "digest": "d"})
    mark = run_dir.done("train", "aa")
    assert mark is not None
    assert mark.facts == {"seconds": 1.0, "digest": "d"}


def test_a_killed_rewrite_leaves_no_mark_of_the_first_writer(run_dir: RunDir) -> None:
    run_dir.finish(TRAINING, "config A", write_outputs(run_dir, b"A"))
    assert run_dir.done(TRAINING, "config A")
    run_dir.withdraw(TRAINING)
    write_outputs(run_dir, b"B")  # and here the process of config B is killed
    assert run_dir.done(TRAINING, "config A") is None
    assert run_dir.done(TRAINING, "config B") is None


def test_a_mark_does_not_vouch_for_files_of_another_writer(
    run_dir: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where a writer has not withdrawn the mark first."""
    run_dir.finish(TRAINING, "config A", write_outputs(run_dir, b"A"))
    write_outputs(run_dir, b"B")
    with caplog.at_level(logging.WARNING):
        assert run_dir.done(TRAINING, "config A") is None
    assert "weights.safetensors was changed since it was written" in caplog.text
    write_outputs(run_dir, b"A")
    assert run_dir.done(TRAINING, "config A")


def test_a_missing_output_means_not_done(run_dir: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    run_dir.finish(TRAINING, "aa", write_outputs(run_dir, b"A"))
    files.delete(run_dir.path(TRAINING, "test.parquet"))
    assert run_dir.done(TRAINING, "aa") is None
    assert "test.parquet is missing" in caplog.text


def test_finish_refuses_outputs_that_are_not_there(run_dir: RunDir) -> None:
    with pytest.raises(FileNotFoundError):
        run_dir.finish(TRAINING, "aa", ["weights.safetensors"])
    assert run_dir.read_mark(TRAINING) is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"fingerprint": 3}',
        '{"fingerprint": "aa", "outputs": []}',
        '{"fingerprint": "aa", "outputs": {"x": 1}}',
        '{"fingerprint": "aa", "outputs": {"x": {"bytes": "3", "sha256": "d"}}}',
        "\x00" * 40,
        "[" * 100_000,
    ],
)
def test_a_damaged_mark_means_not_done(
    run_dir: RunDir, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    files.write_bytes(run_dir.path("train", "done.json"), content.encode())
    assert run_dir.done("train", "aa") is None
    assert "done.json is damaged" in caplog.text


def test_withdrawing_twice_is_harmless(run_dir: RunDir) -> None:
    run_dir.withdraw("train")
    run_dir.finish("train", "aa")
    run_dir.withdraw("train")
    run_dir.withdraw("train")
    assert run_dir.done("train", "aa") is None


def test_a_run_belongs_to_one_data_set(run_dir: RunDir) -> None:
    assert not run_dir.claimed
    run_dir.claim("a" * 64, 10, "/data/one")
    run_dir.claim("a" * 64, 10, "/moved/elsewhere", "arranged")
    assert run_dir.claimed
    record = {"identity": "a" * 64, "rows": 10, "root": "/data/one", "arrangement": "arranged"}
    assert files.read_json(run_dir.path("data.json")) == record
    with pytest.raises(RunDirError, match=r"10 rows of /data/one .* Got: 12 rows of /data/two .*--run-dir"):
        run_dir.claim("b" * 64, 12, "/data/two")


@pytest.mark.parametrize("content", ["", "[]", '{"identity": 3, "rows": 1, "root": "x"}', '{"rows": 1}'])
def test_a_damaged_data_record_counts_as_none(run_dir: RunDir, content: str) -> None:
    files.write_bytes(run_dir.path("data.json"), content.encode())
    assert run_dir.read_data() is None
    run_dir.claim("a" * 64, 10, "/data/one")
    assert run_dir.claimed


def test_the_config_comes_back_as_it_was(run_dir: RunDir, tiny: Experiment) -> None:
    with pytest.raises(RunDirError, match=r"config\.yaml"):
        run_dir.load_config()
    run_dir.store_config(tiny)
    assert run_dir.load_config() == tiny
    for damaged in (b"", b"{", b"\xff\xfe", b"data: {size: [}"):
        files.write_bytes(run_dir.path("config.yaml"), damaged)
        with pytest.raises(RunDirError, match=r"must hold a valid config|must be a section"):
            run_dir.load_config()
