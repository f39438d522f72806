"""``canopy export`` in this process: its options reach the export, bad ones are refused with status 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.inference.conftest import experiment, finished  # noqa: F401 (fixtures)

from canopy.cli.main import main
from canopy.storage.run_dir import RunDir


def test_a_hub_folder_is_exported(
    finished: RunDir,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert main(["export", finished.root, "--to", str(out), "--formats", "hub", "--members", "resnet"]) == 0
    assert (out / "hub" / "model.safetensors").exists()
    assert f"written to {out}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "taken"], "--to must not exist, or be empty"),
        (["--to", "/proc/nowhere/out"], "--to must lie where files can be written"),
        (["--to", "out", "--formats", "hub", "--precisions", "int8"], "--precisions needs the form onnx"),
        (["--to", "out", "--formats", "hub", "--members", "resnet18"], "members must be variants of the run"),
        (["--to", "out", "--formats", "hub", "--max-members", "0"], "must be one or more"),
    ],
)
def test_bad_options_are_refused_and_nothing_is_written(
    arguments: list[str],
    message: str,
    finished: RunDir,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    assert main(["export", finished.root, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["export", str(tmp_path / "empty"), "--to", str(tmp_path / "out"), "--formats", "hub"]) == 2
    assert "must hold a config.yaml" in capsys.readouterr().err
