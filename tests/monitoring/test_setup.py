"""The files of ``canopy monitor``, through promtool where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.support import REPOSITORY

from canopy.cli.main import main
from canopy.monitoring.setup import DEFAULT_SESSION, DISCOVERY_FILE, FILES


def test_the_rules_and_dashboards_are_those_of_the_repository() -> None:
    assert FILES.resolve() == REPOSITORY / "platform" / "deploy" / "monitoring"


def test_it_writes_what_prometheus_and_grafana_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session, out = tmp_path / "session", tmp_path / "out"
    session.mkdir()
    (session / DISCOVERY_FILE).write_text('[{"labels": {"job": "ray"}, "targets": ["127.0.0.1:1"]}]')
    arguments = ["--out", str(out), "--session", str(session), "--port", "9191", "--grafana-port", "3131"]
    assert main(["monitor", *arguments]) == 0
    assert main(["monitor", *arguments]) == 0, "a second call replaces the files"
    printed = capsys.readouterr().out
    assert "RAY_PROMETHEUS_HOST=http://127.0.0.1:9191 RAY_GRAFANA_HOST=http://127.0.0.1:3131" in printed
    config = yaml.safe_load((out / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["file_sd_configs"][0]["files"] == [str(session / DISCOVERY_FILE)]
    assert Path(config["rule_files"][0]).read_text() == (FILES / "alerts.yml").read_text()
    grafana = out / "grafana"
    (source,) = yaml.safe_load((grafana / "provisioning/datasources/canopy.yml").read_text())["datasources"]
    assert (source["name"], source["url"]) == ("Prometheus", "http://127.0.0.1:9191")
    folders = yaml.safe_load((grafana / "provisioning/dashboards/canopy.yml").read_text())["providers"]
    paths = {folder["name"]: Path(folder["options"]["path"]) for folder in folders}
    assert paths["Ray"] == session / "metrics" / "grafana" / "dashboards"
    boards = {json.loads(path.read_text())["uid"] for path in paths["Canopy"].glob("*.json")}
    assert boards == {"canopy-training", "canopy-serving"}
    assert "http_addr = 127.0.0.1\nhttp_port = 3131\n" in (grafana / "grafana.ini").read_text()
    if promtool := shutil.which("promtool"):
        check = [promtool, "check", "config", str(out / "prometheus.yml")]
        done = subprocess.run(check, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_before_ray_has_started_the_newest_session_is_followed(tmp_path: Path) -> None:
    assert main(["monitor", "--out", str(tmp_path)]) == 0
    (job,) = yaml.safe_load((tmp_path / "prometheus.yml").read_text())["scrape_configs"]
    assert job["file_sd_configs"][0]["files"] == [str(DEFAULT_SESSION / DISCOVERY_FILE)]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--session", "gone"], "--session must be the directory of Ray's session. Got: gone."),
        (["--port", "70000"], "--port must be a port, 1 to 65535. Got: 70000."),
        (["--out", "file/folder"], "--out must be a folder that can be written. Got: "),
        (["--start"], "--start needs the program prometheus on PATH. Got: none."),
    ],
)
def test_bad_input_is_one_clear_error(
    arguments: list[str],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "file").write_text("")
    assert main(["monitor", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {problem}")
