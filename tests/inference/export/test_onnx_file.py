"""ONNX files: any batch size, the metadata that a reader needs, what is missing is named."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from canopy.errors import ConfigError
from canopy.inference.export import onnx_file
from canopy.inference.export.onnx_file import (
    OPSET,
    ensemble_metadata,
    exported_program,
    open_session,
    require_onnx,
    run_session,
    write_onnx,
)
from canopy.inference.model import Model


class Mean(nn.Module):
    """The mean color of an image, (N, 3)."""

    def forward(self, images_NHWC: torch.Tensor) -> torch.Tensor:
        return images_NHWC.float().mean((1, 2))


def test_a_file_takes_any_number_of_images_and_holds_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    write_onnx(exported_program(Mean(), 8), "member", path, {"canopy.x": "ü"})
    images_NHWC = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    session = open_session(path)
    for count in (1, 2, 40):
        (found,) = run_session(session, images_NHWC[:count], batch=32)
        np.testing.assert_allclose(found, images_NHWC[:count].mean((1, 2)), atol=1e-3)
    assert session.get_modelmeta().custom_metadata_map["canopy.x"] == "ü"
    assert [one.name for one in session.get_inputs()] == ["images"]
    assert [one.name for one in session.get_outputs()] == ["probs"]
    written = onnx.load(path)
    assert {one.domain: one.version for one in written.opset_import}[""] == OPSET


def test_metadata_says_what_a_reader_needs(model: Model) -> None:
    facts = ensemble_metadata(model.ensemble, 32, model.decoder.sensor)
    assert json.loads(facts["canopy.labels"]) == list(model.labels.names)
    assert np.float32(json.loads(facts["canopy.thresholds"])).tolist() == model.thresholds.tolist()
    assert facts["canopy.image_size"] == "32"


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require_onnx()
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "onnxruntime" else real(name, *more)
    )
    with pytest.raises(ConfigError, match=r"no onnxruntime\. pip install 'canopy-eo\[export\]'"):
        require_onnx()


def test_versions_are_those_that_are_installed() -> None:
    assert onnx_file.versions()["onnx"] == onnx.__version__
