"""The notebook of the documentation runs from its first cell to its last."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support import REPOSITORY


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("CANOPY_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY / "platform"), str(REPOSITORY)]))
    notebook = nbformat.read(REPOSITORY / "platform" / "docs" / "quickstart.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=540, kernel_name="python3").execute()
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert any("image/png" in (out.get("data") or {}) for outs in outputs for out in outs)
    text = "".join(out.get("text", "") for outs in outputs for out in outs)
    assert "train_" in text, "predicted labels are printed"
