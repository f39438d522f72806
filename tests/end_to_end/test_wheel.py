"""The wheel: built, installed into a clean environment, its command called."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from tests.support import REPOSITORY

import canopy

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("dist")
    run("uv", "build", "--quiet", "--wheel", "--out-dir", folder, cwd=REPOSITORY)
    (found,) = folder.glob("*.whl")
    return found


def test_its_name_and_content(wheel: Path) -> None:
    assert wheel.name == f"canopy_eo-{canopy.__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert {"canopy/cli/main.py", "canopy/report/page.html.j2", "canopy/report/page.css"} <= set(names)
    assert {name.partition("/")[0] for name in names} == {
        "canopy",
        f"canopy_eo-{canopy.__version__}.dist-info",
    }


def test_the_installed_command_works(wheel: Path, tmp_path: Path) -> None:
    """The environment holds the wheel alone; its dependencies are those installed here."""
    environment = tmp_path / "environment"
    run("uv", "venv", "--quiet", "--python", sys.executable, environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    run("uv", "pip", "install", "--quiet", "--no-deps", "--python", python, wheel, cwd=tmp_path)
    place = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    # Only the path of the dependencies: its own .pth files, which lead to this tree, are not followed.
    (Path(place) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(python, "-c", "import canopy; print(canopy.__file__)", cwd=tmp_path)
    assert where.strip().startswith(str(environment)), where
    command = environment / "bin" / "canopy"
    assert "usage: canopy COMMAND" in run(command, "--help", cwd=tmp_path)
    plan = run(command, "pipeline", "--dry-run", cwd=tmp_path)
    assert "3 variants × 1 fold = 3 trainings" in plan
    assert run(command, "--version", cwd=tmp_path) == f"canopy {canopy.__version__}\n"
