"""Predict with an exported Canopy ensemble: numpy, Pillow and onnxruntime are all that it needs.

From the shell, with one line of JSON per image, and from Python::

    python runtime.py chip.jpg other.png [--model ensemble.onnx]
    from runtime import Runtime
    probs, decisions = Runtime("ensemble.onnx").predict(["chip.jpg", pillow_image, array_of_uint8])

Pixels are read as in training: alpha dropped, orientation tags ignored, resized by Pillow's bilinear filter.
Whatever would need a choice (16 bits, more than three bands, several frames) is refused. An ensemble of its
own bands takes levels (S, S, C) in their order, as arrays or .npy files: the stored integers, or for a band
with a range (low, high), round((sample * scale + offset - low) / (high - low) * highest level).
"""

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
MAX_PIXELS = 64_000_000


class Runtime:
    """An exported ensemble.

    Args:
        path: the ONNX file; its metadata holds labels, thresholds and image size.
        batch, threads: images in one run of the graph; threads of ONNX Runtime, 0 for one per core.
    """

    def __init__(self, path: "str | Path | None" = None, batch: int = 32, threads: int = 0) -> None:
        path = Path(path or Path(__file__).with_name("ensemble.onnx"))
        if not path.is_file():
            raise FileNotFoundError(f"{path} must be the ONNX file of an exported ensemble")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        facts = self.session.get_modelmeta().custom_metadata_map
        if (found := facts.get("canopy.format")) != "canopy-onnx/1":
            raise ValueError(f"{path} must be an ensemble of format canopy-onnx/1: {found}")
        self.labels = tuple(json.loads(facts["canopy.labels"]))
        self.thresholds = np.array(json.loads(facts["canopy.thresholds"]), np.float32)
        self.image_size, self.batch = int(facts["canopy.image_size"]), batch
        self.layout = json.loads(facts.get("canopy.bands", "null"))
        self.bands = tuple(band["name"] for band in self.layout["bands"]) if self.layout else ()
        self.plain_colors = json.loads(facts["canopy.sensor"]).get("bands") is None

    def predict(self, images: "list[Any] | np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
        """Probabilities (N, K), float32, and decisions (N, K), uint8, of images of any kind above."""
        labels, images = len(self.labels), list(images)
        probs, decisions = [np.zeros((0, labels), np.float32)], [np.zeros((0, labels), np.uint8)]
        for start in range(0, len(images), self.batch):
            chips = np.stack([self.pixels(image) for image in images[start : start + self.batch]])
            found = self.session.run(["probs", "decisions"], {"images": chips})
            probs.append(found[0])
            decisions.append(found[1])
        return np.concatenate(probs), np.concatenate(decisions)

    def names(self, decisions: np.ndarray) -> "list[str]":
        """Names of the predicted labels of one image."""
        return [name for name, chosen in zip(self.labels, decisions, strict=True) if chosen]

    def pixels(self, image: Any) -> np.ndarray:
        """One image as uint8 (S, S, 3), or the levels of its bands (S, S, C)."""
        if self.bands:
            return self.levels(image)
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
                raise ValueError(f"an array must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
            return self.resized(Image.fromarray(image))
        if isinstance(image, Image.Image):
            return self.resized(rgb(image))
        data, name = (image, "the image") if isinstance(image, bytes) else (Path(image).read_bytes(), image)
        if not self.plain_colors:
            raise ValueError("this ensemble reads chosen bands of its files: give decoded arrays instead")
        return self.resized(decode(data, name))

    def levels(self, image: Any) -> np.ndarray:
        """The levels of one image of bands: an array, or the path of a .npy file."""
        levels = image if isinstance(image, np.ndarray) else np.lib.format.open_memmap(image, mode="r")
        shape, dtype = (self.image_size, self.image_size, len(self.bands)), self.layout["dtype"]
        if levels.shape != shape or levels.dtype != dtype:
            need = f"an image must hold {dtype} {shape}, its bands {', '.join(self.bands)}"
            raise ValueError(f"{need}, not {levels.dtype} {levels.shape}")
        return levels

    def resized(self, image: Image.Image) -> np.ndarray:
        """The pixels of an RGB image, resized where its size differs."""
        size = (self.image_size, self.image_size)
        return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BILINEAR))


def decode(data: bytes, name: object = "the image") -> Image.Image:
    """Decode the bytes of an image file to an RGB image of Pillow."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except OSError:
        raise ValueError(f"{name} must be one of {', '.join(FORMATS)}, and not damaged") from None
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{name} has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
    deep_png = image.format == "PNG" and data[24:25] == b"\x10"  # the depth, in IHDR
    if deep_png or (image.format == "TIFF" and image.mode not in ("L", "RGB")):
        raise ValueError(f"{name} must hold one or three bands of 8 bits; convert it first")
    if image.format != "JPEG" and getattr(image, "n_frames", 1) > 1:
        raise ValueError(f"{name} must hold one frame, not {image.n_frames}")  # type: ignore[attr-defined]
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{name} is damaged or truncated: {error}") from None
    return rgb(image)


def rgb(image: Image.Image) -> Image.Image:
    """The colors of an image of 8 bits; alpha is dropped."""
    if image.mode not in MODES:
        raise ValueError(f"Pillow's mode {image.mode} has no known full scale; convert to RGB first")
    if "transparency" in image.info or image.mode in ("PA", "LA", "La", "RGBa"):
        image = image.convert("RGBA")
    return image.convert("RGB")


def main() -> None:
    """Print one line of JSON per image: labels, probabilities, or the error."""
    parser = argparse.ArgumentParser(description="Predict with an exported Canopy ensemble.")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--model", help="the ONNX file; default: ensemble.onnx beside this file")
    arguments = parser.parse_args()
    model, failed = Runtime(arguments.model), False
    for path in arguments.images:
        try:
            probs, decisions = model.predict([path])
            scores = {name: round(float(p), 6) for name, p in zip(model.labels, probs[0], strict=True)}
            said: dict[str, Any] = {"labels": model.names(decisions[0]), "probs": scores}
        except (OSError, ValueError) as error:
            said, failed = {"error": str(error)}, True
        print(json.dumps({"image": path, **said}), flush=True)
    sys.exit(2 if failed else 0)


if __name__ == "__main__":
    main()
