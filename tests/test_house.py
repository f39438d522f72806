"""Rules of the repository that no other tool checks."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

from tests.support import REPOSITORY

PACKAGE, TESTS = REPOSITORY / "platform" / "canopy", REPOSITORY / "tests"
NO_MIRROR = ("jobs", "deploy", "end_to_end")
"""Directories of tests that span modules."""
NO_MODULE = ("test_house.py", "test_lock.py")
DOCUMENTS = (
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *(REPOSITORY / "platform/docs").glob("*.md"),
)
PLACES = (
    REPOSITORY,
    REPOSITORY / "platform",
    PACKAGE,
    REPOSITORY / "jobs",
    REPOSITORY / "platform" / "deploy",
)
"""Directories that paths in documents may be relative to, in addition to the directory of the document."""
LOGIC = 5
"""Statements of a function above which its module needs a test file of the same name."""


def test_the_standard_module_platform_wins() -> None:
    assert not (REPOSITORY / "platform" / "__init__.py").exists(), "it would shadow the standard module"
    command = "import platform; platform.node(); import canopy; print(canopy.__name__)"
    done = subprocess.run([sys.executable, "-c", command], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "canopy\n"), done.stderr


def test_every_job_has_a_docstring_and_a_main() -> None:
    for job in (REPOSITORY / "jobs").glob("*.py"):
        module = importlib.import_module(f"jobs.{job.stem}")
        assert module.__doc__, job
        assert callable(module.main), job


def test_jobs_are_thin() -> None:
    for job in (REPOSITORY / "jobs").glob("*.py"):
        assert len(job.read_text().splitlines()) <= 15, job


def test_the_ensemble_needs_neither_ray_nor_torch() -> None:
    code = (
        "import sys; import canopy.ensemble.model; "
        "print([m for m in ('ray', 'torch', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ray" not in done.stdout
    assert "torch" not in done.stdout


def statements(function: ast.AST) -> int:
    """Number of statements in a function, nested ones included, its docstring not."""
    found = [node for node in ast.walk(function) if isinstance(node, ast.stmt) and node is not function]
    return sum(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in found)


def has_logic(module: Path) -> bool:
    """Whether a module has a function of more than ``LOGIC`` statements."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return any(isinstance(node, functions) and statements(node) > LOGIC for node in ast.walk(tree))


def unmatched_tests(package: Path, tests: Path) -> list[str]:
    """Test files whose path names no module: ``a/test_b.py`` needs ``a/b.py`` or ``a/b/``."""
    found = []
    for test in sorted(tests.rglob("test_*.py")):
        path = test.relative_to(tests)
        if path.parts[0] in NO_MIRROR or path.as_posix() in NO_MODULE:
            continue
        place = package / path.parent / path.stem.removeprefix("test_")
        if not (place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()):
            found.append(path.as_posix())
    return found


def untested_modules(package: Path, tests: Path) -> list[str]:
    """Modules with logic that have no test file, alone or with a directory of tests of their own."""
    found = []
    for module in sorted(package.rglob("*.py")):
        path = module.relative_to(package)
        if not has_logic(module):
            continue
        name = path.parent.name if module.name == "__init__.py" else path.stem
        place = (tests / path.parent if module.name != "__init__.py" else tests / path.parent.parent) / name
        if not (place.with_name(f"test_{name}.py").is_file() or place.is_dir()):
            found.append(path.as_posix())
    return found


def test_the_mirror_check_finds_what_is_missing(tmp_path: Path) -> None:
    package, tests = tmp_path / "package", tmp_path / "tests"
    for path in (package / "a", tests / "a", tests / "jobs"):
        path.mkdir(parents=True)
    (package / "a" / "long.py").write_text("def f():\n" + "    x = 1\n" * (LOGIC + 1))
    (package / "a" / "short.py").write_text("def f():\n" + "    x = 1\n" * LOGIC)
    (tests / "a" / "test_other.py").write_text("")
    (tests / "jobs" / "test_any.py").write_text("")
    (tests / "test_house.py").write_text("")
    assert untested_modules(package, tests) == ["a/long.py"]
    assert unmatched_tests(package, tests) == ["a/test_other.py"]
    (tests / "a" / "test_other.py").rename(tests / "a" / "test_long.py")
    assert untested_modules(package, tests) == unmatched_tests(package, tests) == []


def test_every_test_file_mirrors_a_module() -> None:
    assert unmatched_tests(PACKAGE, TESTS) == []


def test_every_module_with_logic_has_a_test_file() -> None:
    assert untested_modules(PACKAGE, TESTS) == []


def broken_links(document: Path) -> list[str]:
    """Targets of a document's relative links that do not exist."""
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", document.read_text(encoding="utf-8"))
    relative = [target for target in targets if "://" not in target and not target.startswith("mailto:")]
    return [target for target in relative if not (document.parent / target).exists()]


def unknown_paths(document: Path) -> list[str]:
    """Python and YAML files in a document's code, inline or fenced, that do not exist; skips ``runs/``."""
    text = document.read_text(encoding="utf-8")
    code = re.findall(r"^```.*?^```|`[^`\n]+`", text, re.DOTALL | re.MULTILINE)
    paths = re.findall(r"(?<![\w./:*-])[\w./-]+\.(?:py|yaml)\b", "\n".join(code))
    places = (document.parent, *PLACES)
    return [
        path
        for path in paths
        if not path.startswith("runs/") and not any((place / path).is_file() for place in places)
    ]


def test_the_document_checks_find_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("")
    document = tmp_path / "page.md"
    document.write_text(
        "[a](there.md#part) [b](gone.md) [c](https://example.org/x.md) [d](#part)\n"
        "`train/loop.py` `train/gone.py` `runs/a/config.yaml` and gone/plain.py\n"
        "```\npython jobs/train.py\npython jobs/gone.py --config gone.yaml\n```\n"
    )
    assert broken_links(document) == ["gone.md"]
    assert unknown_paths(document) == ["train/gone.py", "jobs/gone.py", "gone.yaml"]


def test_links_in_documents_lead_to_files() -> None:
    assert {path.name: broken for path in DOCUMENTS if (broken := broken_links(path))} == {}


def test_files_named_in_documents_exist() -> None:
    assert {path.name: unknown for path in DOCUMENTS if (unknown := unknown_paths(path))} == {}
