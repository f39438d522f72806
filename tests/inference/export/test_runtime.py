"""``runtime.py`` where neither torch nor Ray nor Canopy can be: the decisions are the model's."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.bands import write_raster

from canopy.inference.export import runtime
from canopy.inference.export.export import ExportPlan, export_run
from canopy.inference.model import Model
from canopy.runtime.console import Console
from canopy.storage.run_dir import RunDir

ONLY = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {'torch', 'ray', 'canopy', 'onnx', 'scipy', 'pandas', 'pyarrow', 'timm'}:
            raise ModuleNotFoundError(f'no {name} here')
sys.meta_path.insert(0, Nothing())
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[1:]
import runtime
try:
    runtime.main()
finally:
    loaded = {name.partition('.')[0] for name in sys.modules}
    outside = loaded - set(sys.stdlib_module_names) - {'__main__', 'runtime', 'numpy', 'PIL', 'onnxruntime'}
    print(json.dumps(sorted(outside)) if (json := __import__('json')) else '', file=sys.stderr)
"""


@pytest.fixture(scope="module")
def out(with_chips: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX export."""
    place = tmp_path_factory.mktemp("runtime") / "out"
    plan = ExportPlan(("onnx",), member_files=False, members=("resnet",))
    export_run(with_chips.root, str(place), plan, Console())
    return place


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of every kind that both read: sizes, modes and formats differ."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(1)
    coarse = generator.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((130, 90), Image.Resampling.BICUBIC)
    gray, small = image.convert("L"), image.resize((32, 32))
    palette = image.quantize(32)
    palette.info["transparency"] = 3
    saved = {
        "a.jpg": image,
        "b.png": image,
        "c.webp": image,
        "d.tif": image,
        "gray.jpg": gray,
        "gray.tif": gray,
        "cmyk.jpg": image.convert("CMYK"),
        "small.png": small,
        "rgba.png": image.convert("RGBA"),
        "la.png": gray.convert("LA"),
        "palette.png": palette,
        "one.gif": image.quantize(64),
        "one.bmp": image,
        "bits.png": gray.convert("1"),
    }
    for name, content in saved.items():
        content.save(folder / name)
    return [folder / name for name in saved]


def test_it_decides_as_the_model_with_numpy_pillow_and_onnxruntime_alone(
    out: Path, pictures: list[Path], with_chips: RunDir
) -> None:
    import canopy

    model = canopy.load(with_chips.root, members=["resnet"], device="cpu", precision="float32")
    done = subprocess.run(
        [sys.executable, "-I", "-c", ONLY, str(out), *map(str, pictures)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    expected = model.predict([str(path) for path in pictures])
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == [str(path) for path in pictures]
    for line, names, probs_K in zip(lines, expected.predicted, expected.probs_NK, strict=True):
        assert tuple(line["labels"]) == names, line["image"]
        np.testing.assert_allclose(list(line["probs"].values()), probs_K, atol=1e-4, err_msg=line["image"])
    assert np.ptp(expected.probs_NK, axis=0).max() > 0.01, "else anything would agree"
    outside = set(json.loads(done.stderr.splitlines()[-1]))
    assert not {"torch", "ray", "canopy", "onnx"} & outside


def test_pixels_are_those_of_training(pictures: list[Path], model: Model, out: Path) -> None:
    loaded = runtime.Runtime(out / "ensemble.onnx")
    for path in pictures:
        ours, theirs = loaded.pixels(str(path)), model.decoder.chip(str(path))
        np.testing.assert_array_equal(ours, theirs, err_msg=path.name)


def test_arrays_bytes_and_pillow_images_are_read_too(
    pictures: list[Path], out: Path, images_NHWC: NDArray[np.uint8]
) -> None:
    loaded = runtime.Runtime(out / "ensemble.onnx", batch=2)
    png = pictures[1]
    found_NK, _ = loaded.predict([str(png), png.read_bytes(), Image.open(png), np.asarray(Image.open(png))])
    np.testing.assert_allclose(found_NK, np.tile(found_NK[:1], (4, 1)), atol=1e-6)
    assert loaded.predict(images_NHWC)[0].shape == (7, 4)
    assert loaded.predict([])[1].shape == (0, 4)


@pytest.fixture(scope="module")
def band_out(with_bands: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX export of a model of bands."""
    place = tmp_path_factory.mktemp("runtime-bands") / "out"
    plan = ExportPlan(("onnx",), member_files=False, members=("resnet",))
    export_run(with_bands.root, str(place), plan, Console())
    return place


def test_levels_of_bands_are_read_as_arrays_and_from_files(
    band_out: Path, with_bands: RunDir, band_chips_NHWC: NDArray[np.uint16], tmp_path: Path
) -> None:
    import canopy

    model = canopy.load(with_bands.root, members=["resnet"], device="cpu", precision="float32")
    expected = model.predict_decoded(band_chips_NHWC[:9])
    assert np.ptp(expected.probs_NK, axis=0).max() > 0.01, "else anything would agree"
    loaded = runtime.Runtime(band_out / "ensemble.onnx", batch=4)
    assert loaded.bands == ("red", "green", "nir", "ndvi")
    np.save(tmp_path / "chip.npy", band_chips_NHWC[0])
    probs_NK, decisions_NK = loaded.predict([str(tmp_path / "chip.npy"), *band_chips_NHWC[1:9]])
    np.testing.assert_allclose(probs_NK, expected.probs_NK, atol=1e-4)
    np.testing.assert_array_equal(decisions_NK, expected.decisions_NK)
    need = r"must hold uint16 \(32, 32, 4\), its bands red, green, nir, ndvi, not"
    for array in (band_chips_NHWC[0, :16], band_chips_NHWC[0].astype(np.int16), band_chips_NHWC[0, ..., :3]):
        with pytest.raises(ValueError, match=need):
            loaded.predict([array])
    Image.new("RGB", (32, 32)).save(tmp_path / "chip.png")
    done = subprocess.run(
        [
            sys.executable,
            str(band_out / "runtime.py"),
            str(tmp_path / "chip.png"),
            str(tmp_path / "chip.npy"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert "magic string" in lines[0]["error"]
    np.testing.assert_allclose(list(lines[1]["probs"].values()), expected.probs_NK[0], atol=1e-4)


def test_its_formula_gives_the_levels_of_training(band_out: Path, with_bands: RunDir, tmp_path: Path) -> None:
    """The formula of the docstring, from samples of a file and the metadata alone."""
    import canopy

    samples_bHW = np.random.default_rng(1).integers(500, 4000, (4, 32, 32), dtype=np.uint16)
    path = tmp_path / "chip.tif"
    write_raster(path, samples_bHW)
    layout = runtime.Runtime(band_out / "ensemble.onnx").layout
    highest = np.iinfo(layout["dtype"]).max
    expected = canopy.load(with_bands.root, device="cpu").decoder.chip(str(path))
    for channel, band in enumerate(layout["bands"][:3]):
        low, high = band["range"]
        levels = np.round((samples_bHW[band["band"] - 1] - low) / (high - low) * highest)
        np.testing.assert_array_equal(expected[..., channel], levels)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_what_would_need_a_choice_is_refused(pictures: list[Path], tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    deep = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 999)
    jpeg = pictures[0].read_bytes()
    refused = {
        b"text": "must be one of JPEG",
        b"": "must be one of JPEG",
        encoded(deep, "PNG"): "bands of 8 bits",
        encoded(deep, "TIFF"): "bands of 8 bits",
        encoded(Image.new("RGBA", (8, 8)), "TIFF"): "bands of 8 bits",
        encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]): "one frame",
        encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]): "one frame",
        encoded(Image.new("1", (9000, 9000)), "PNG"): "pixels, more than",
        jpeg[: len(jpeg) // 2]: "damaged or truncated",
    }
    for data, message in refused.items():
        with pytest.raises(ValueError, match=message):
            runtime.decode(data)


def test_a_bad_image_is_an_error_of_its_own_and_of_the_exit_status(out: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\x00")
    Image.new("RGB", (40, 30), "green").save(tmp_path / "good.png")
    names = [str(tmp_path / name) for name in ("bad.jpg", "none.jpg", "good.png")]
    done = subprocess.run(
        [sys.executable, str(out / "runtime.py"), *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [sorted(line) for line in lines[:2]] == [["error", "image"]] * 2
    assert set(lines[2]["probs"]) == {"common", "half", "some", "rare"}


def test_another_file_is_refused(out: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must be the ONNX file"):
        runtime.Runtime(tmp_path / "none.onnx")
    assert len(Path(runtime.__file__).read_text().splitlines()) < 150
