"""A whole export, of a small run: all forms, all checked; a graph that predicts otherwise is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import canopy
from canopy.config import ModelConfig, VariantConfig, derive
from canopy.config.presets import PRESETS
from canopy.errors import StageError
from canopy.inference.export.export import Exporter, ExportPlan, export_run
from canopy.inference.export.graph import MemberGraph
from canopy.inference.export.onnx_file import exported_program, open_session, predict, run_session, write_onnx
from canopy.inference.model import Model
from canopy.models.network import build_model
from canopy.runtime.console import Console
from canopy.storage.run_dir import RunDir
from canopy.train.trained_model import TrainedModel


@pytest.fixture(scope="module")
def exported(with_chips: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export in all forms and precisions."""
    out = tmp_path_factory.mktemp("export") / "out"
    plan = ExportPlan(precisions=("float16", "int8"), members=("resnet", "resnet-cbam"))
    export_run(with_chips.root, str(out), plan, Console())
    return out


@pytest.fixture(scope="module")
def chosen(with_chips: RunDir) -> Model:
    """The exported model."""
    return canopy.load(with_chips.root, members=["resnet", "resnet-cbam"], device="cpu", precision="float32")


@pytest.fixture(scope="module")
def record(exported: Path) -> Any:
    """The content of ``export.json``."""
    return json.loads((exported / "export.json").read_text())


@pytest.mark.slow
def test_all_files_are_there_and_their_hashes_are_right(exported: Path, record: Any) -> None:
    found = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert found == {*record["files"], "export.json"}
    assert {
        "ensemble.onnx",
        "ensemble.float16.onnx",
        "ensemble.int8.onnx",
        "members/resnet.onnx",
        "members/resnet-cbam.onnx",
        "runtime.py",
        "ensemble.pt2",
        "hub/model.safetensors",
        "hub/README.md",
    } <= found
    for name, facts in record["files"].items():
        data = (exported / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (facts["bytes"], facts["sha256"])


@pytest.mark.slow
def test_the_record_says_versions_checks_and_losses(record: Any) -> None:
    assert record["format"] == "canopy-export/1"
    assert record["opset"] == 20
    assert set(record["versions"]) == {"torch", "onnx", "onnxscript", "onnxruntime"}
    for name in ("ensemble.onnx", "ensemble.pt2", "members/resnet.onnx"):
        assert record["checks"][name]["max_difference"] <= 1e-4
        assert record["checks"][name]["differing"] == 0
    assert record["checks"]["ensemble.onnx"]["images"] == 48
    for precision in ("float16", "int8"):
        facts = record["precisions"][precision]
        assert facts["bytes"] < facts["bytes_float32"]
        assert facts["val"]["chips"] == 48
        assert facts["val"]["macro_f1_float32"] > 0.5
        assert abs(facts["val"]["loss"]) < 0.2
    assert not any(word in json.dumps(record) for word in ("/tmp", "/home"))


@pytest.mark.slow
def test_onnx_and_torch_programs_predict_as_the_model(
    exported: Path, chosen: Model, images_NHWC: NDArray[np.uint8]
) -> None:
    expected = chosen.predict_decoded(images_NHWC)
    probs_NK, decisions_NK = predict(open_session(exported / "ensemble.onnx"), images_NHWC)
    np.testing.assert_allclose(probs_NK, expected.probs_NK, atol=1e-5)
    np.testing.assert_array_equal(decisions_NK, expected.decisions_NK)
    program = torch.export.load(exported / "ensemble.pt2").module()
    for count in (1, len(images_NHWC)):
        probs, decisions = program(torch.from_numpy(images_NHWC[:count]))
        np.testing.assert_allclose(probs.numpy(), expected.probs_NK[:count], atol=1e-5)
        np.testing.assert_array_equal(decisions.numpy(), expected.decisions_NK[:count])


@pytest.mark.slow
def test_the_hubs_folder_predicts_as_the_model(
    exported: Path, chosen: Model, images_NHWC: NDArray[np.uint8]
) -> None:
    loaded = canopy.load(str(exported / "hub"), device="cpu", precision="float32")
    ours = loaded.predict_decoded(images_NHWC).probs_NK
    np.testing.assert_array_equal(ours, chosen.predict_decoded(images_NHWC).probs_NK)


@pytest.mark.slow
def test_a_graph_that_predicts_otherwise_is_refused(chosen: Model, tmp_path: Path) -> None:
    exporter = Exporter(chosen, ExportPlan(("onnx",), member_files=False), None, tmp_path, Console())
    probs_NK, decisions_NK = exporter.expected
    exporter.expected = (probs_NK + np.float32(3e-4), decisions_NK)
    with pytest.raises(StageError, match=r"ensemble\.onnx predicts otherwise than the model on 48 images"):
        exporter.run()
    assert not (tmp_path / "export.json").exists()


@pytest.fixture(scope="module")
def band_model(with_bands: RunDir) -> Model:
    """The model of the run of bands."""
    return canopy.load(with_bands.root, device="cpu", precision="float32")


@pytest.mark.slow
def test_a_model_of_bands_exports_in_every_form(
    with_bands: RunDir, band_model: Model, band_chips_NHWC: NDArray[np.uint16], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    record = export_run(with_bands.root, str(out), ExportPlan(precisions=("float16", "int8")), Console())
    assert record["bands"] == ["red", "green", "nir", "ndvi"]
    assert record["dtype"] == "uint16"
    assert {"ensemble.onnx", "ensemble.pt2", "members/resnet.onnx"} <= set(record["checks"])
    assert max(check["max_difference"] for check in record["checks"].values()) <= 1e-4
    for precision in ("float16", "int8"):
        facts = record["precisions"][precision]
        assert facts["val"]["macro_f1_float32"] > 0.5
        assert abs(facts["val"]["loss"]) < 0.2
    expected = band_model.predict_decoded(band_chips_NHWC)
    assert np.ptp(expected.probs_NK, axis=0).max() > 0.01, "else anything would agree"
    program = torch.export.load(out / "ensemble.pt2").module()
    probs, decisions = program(torch.from_numpy(band_chips_NHWC))
    np.testing.assert_allclose(probs.numpy(), expected.probs_NK, atol=1e-4)
    np.testing.assert_array_equal(decisions.numpy(), expected.decisions_NK)
    hub = canopy.load(str(out / "hub"), device="cpu", precision="float32")
    np.testing.assert_array_equal(hub.predict_decoded(band_chips_NHWC).probs_NK, expected.probs_NK)
    assert "4 bands (red, green, nir, ndvi)" in (out / "hub" / "README.md").read_text()


def export_member(variant: VariantConfig, image_size: int, out: Path) -> float:
    """Export one network as an ONNX file; the largest difference of a probability on two images."""
    torch.manual_seed(0)
    network = build_model(derive(variant.model, pretrained=False, weights=None), 17)
    for name, parameter in network.named_parameters():
        if name.endswith("gate"):  # CBAM at gate 0 would be no part of the graph's result
            torch.nn.init.constant_(parameter, 0.7)
        elif name.startswith("head."):
            torch.nn.init.normal_(parameter, std=0.5)
    graph = MemberGraph([TrainedModel(variant, network.eval())])
    path = out / f"{variant.name}.onnx"
    write_onnx(exported_program(graph, image_size), "member", path, {})
    images_NHWC = np.random.default_rng(0).integers(0, 256, (3, image_size, image_size, 3), dtype=np.uint8)
    session = open_session(path)
    found = [run_session(session, images_NHWC[:count])[0] for count in (1, 3)]
    with torch.inference_mode():
        expected_NFK = graph(torch.from_numpy(images_NHWC)).numpy()
    assert np.ptp(expected_NFK) > 0.05, "else anything would agree"
    np.testing.assert_allclose(found[0], found[1][:1], atol=1e-5)
    path.unlink()
    return float(np.abs(found[1] - expected_NFK).max())


def members_of_presets() -> list[Any]:
    """The members of every RGB preset, equal networks once, and others that no preset has."""
    found: dict[str, tuple[VariantConfig, int]] = {}
    for preset, make in PRESETS.items():
        experiment = make()
        for variant in () if experiment.data.bands else experiment.variants:  # export takes RGB
            key = f"{variant.model} {variant.augment.crop} {variant.tta} {experiment.data.image_size}"
            named = derive(variant, name=f"{preset}-{variant.name}")
            found.setdefault(key, (named, experiment.data.image_size))
    others = {
        "vit": ModelConfig(backbone="vit_tiny_patch16_224", input_size=224),
        "vit-small-input": ModelConfig(backbone="vit_tiny_patch16_224", input_size=96),
        "swin": ModelConfig(backbone="swin_tiny_patch4_window7_224", input_size=224),
        "swin-csra": ModelConfig(backbone="swin_tiny_patch4_window7_224", input_size=224, head="csra"),
        "csra": ModelConfig(backbone="resnet18", head="csra"),
        "cbam-all": ModelConfig(backbone="resnet18", cbam="all"),
        "efficientnet": ModelConfig(backbone="efficientnet_b0"),
        "convnext": ModelConfig(backbone="convnext_atto"),
        "shrinking": ModelConfig(backbone="resnet18", input_size=40),
    }
    for name, config in others.items():
        found[name] = (VariantConfig(name=name, model=config, tta="flips"), 64)
    return [pytest.param(variant, size, id=variant.name) for variant, size in found.values()]


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "image_size"), members_of_presets())
def test_the_members_of_every_preset_export(variant: VariantConfig, image_size: int, tmp_path: Path) -> None:
    assert export_member(variant, image_size, tmp_path) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(backbone="test_efficientnet", cbam="all", input_size=48),
        ModelConfig(backbone="test_resnet", head="csra", input_size=24),
        ModelConfig(backbone="test_vit", head="mlp", input_size=160),
    ],
    ids=["efficientnet-cbam", "csra-shrinking", "vit"],
)
def test_small_networks_of_every_kind_export(config: ModelConfig, tmp_path: Path) -> None:
    variant = VariantConfig(name="small", model=config, tta="flips")
    assert export_member(variant, 32, tmp_path) < 1e-4


def test_plans_that_contradict_themselves(with_chips: RunDir, tmp_path: Path) -> None:
    from canopy.errors import ConfigError

    for plan, message in (
        (ExportPlan(()), "--formats must name at least one form"),
        (ExportPlan(("hub",), ("int8",)), "--precisions needs the form onnx"),
    ):
        with pytest.raises(ConfigError, match=message):
            export_run(with_chips.root, str(tmp_path / "out"), plan, Console())
    copy = shutil.copytree(with_chips.root, tmp_path / "copy")
    (copy / "prepare" / "chips.npy").unlink()
    with pytest.raises(ConfigError, match="needs chips that the run keeps"):
        export_run(str(copy), str(tmp_path / "out"), ExportPlan(("onnx",), ("int8",)), Console())
    assert not (tmp_path / "out").exists()
