"""requirements.lock, the constraints in pyproject.toml and what is installed are one and the same."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = [line.removesuffix(" \\") for line in LOCK.splitlines() if re.match(r"[a-z0-9]", line)]
REMEDY = "Run .ci/lock, then uv sync."


def pinned(pin: str) -> str:
    """The version in ``name==version ; marker``."""
    (specifier,) = Requirement(pin).specifier
    assert specifier.operator == "==", pin
    return specifier.version


def test_the_constraints_are_the_locked_versions() -> None:
    constraints = PROJECT["tool"]["uv"]["constraint-dependencies"]
    assert constraints == PINS, f"pyproject.toml and requirements.lock differ. {REMEDY}"


def test_every_dependency_is_locked_within_its_bounds() -> None:
    locked: dict[str, list[str]] = {}
    for pin in PINS:
        locked.setdefault(canonicalize_name(Requirement(pin).name), []).append(pinned(pin))
    for line in PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]:
        wanted = Requirement(line)
        versions = locked.get(canonicalize_name(wanted.name), [])
        assert versions, f"{wanted.name} is not in requirements.lock. {REMEDY}"
        assert all(wanted.specifier.contains(v) for v in versions), f"{line}: {versions}. {REMEDY}"


def test_what_is_installed_is_what_is_locked() -> None:
    wrong = []
    for pin in PINS:
        requirement = Requirement(pin)
        if requirement.marker is None or requirement.marker.evaluate():
            try:
                found = version(requirement.name)
            except PackageNotFoundError:
                found = "not installed"
            if found != pinned(pin):
                wrong.append(f"{pin}: {found}")
    assert not wrong, f"{REMEDY} {wrong}"


def test_every_version_has_its_hashes_and_no_address() -> None:
    entries = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(PINS) > 100
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
    for address in ("://", "--index", "--find-links", " @ ", "file:", str(ROOT)):
        assert address not in LOCK


def test_the_lock_reaches_beyond_this_platform() -> None:
    """One resolution for every platform: CUDA on Linux, nothing of it on macOS, forks by Python version."""
    markers = {Requirement(pin).name: str(Requirement(pin).marker or "") for pin in PINS}
    assert 'sys_platform == "linux"' in markers["nvidia-nccl-cu13"]
    assert markers["torch"] == ""
    assert len([pin for pin in PINS if pin.startswith("numpy==")]) >= 1
