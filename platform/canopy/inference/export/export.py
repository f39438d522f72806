"""Exports a finished run: every form is made in a temporary directory, checked, and published as one.

::

    OUT/
      export.json            formats, versions, checks, SHA-256 of every file
      ensemble.onnx          the whole ensemble: images (N, S, S, C) -> probs, decisions
      ensemble.float16.onnx  the same, networks in half precision (``--precisions float16``)
      ensemble.int8.onnx     the same, layers of the networks in 8 bits (``--precisions int8``)
      members/NAME.onnx      one member: images (N, S, S, C) -> probs (N, folds, K), before calibration
      runtime.py             predicts with ensemble.onnx; needs numpy, Pillow and onnxruntime
      ensemble.pt2           the whole ensemble as a program of torch.export
      hub/                   a folder in the layout of the Hugging Face hub

Images are uint8 RGB, C = 3, or levels of the run's bands in their order, uint8 or uint16.
A file of more than 1.5 GB of weights has them in a second file, ``NAME.onnx.data``.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

import canopy
from canopy.errors import ConfigError
from canopy.inference.export import hub, onnx_file, quantize
from canopy.inference.export.checked_images import batches, check_images
from canopy.inference.export.destination import building, check_destination
from canopy.inference.export.graph import EnsembleGraph, MemberGraph
from canopy.inference.export.model_card import model_card
from canopy.inference.export.onnx_file import exported_program, open_session, write_onnx
from canopy.inference.export.parity import Parity, Prediction, compare, require_parity
from canopy.inference.load import load_model
from canopy.storage import files
from canopy.storage.run_dir import RunDir

if TYPE_CHECKING:
    from canopy.inference.model import Model
    from canopy.runtime.console import Console

NAME = "export"
"""Name of the command on the console."""
FORMAT = "canopy-export/1"
Format = Literal["onnx", "torch", "hub"]
FORMATS: tuple[Format, ...] = ("onnx", "torch", "hub")
SmallPrecision = Literal["float16", "int8"]


@dataclass(frozen=True)
class ExportPlan:
    """What to export.

    Args:
        formats: forms to write.
        precisions: additional ONNX files in smaller number formats.
        member_files: whether each member is written as an ONNX file of its own, too.
        members: variants to export; None: all that the run's ensemble reads.
        max_members: largest number of members; None: no limit.
    """

    formats: tuple[Format, ...] = FORMATS
    precisions: tuple[SmallPrecision, ...] = ()
    member_files: bool = True
    members: Sequence[str] | None = None
    max_members: int | None = None

    def check(self) -> None:
        """Refuse a plan that contradicts itself or needs packages that are missing.

        Raises:
            ConfigError: naming what is wrong.
        """
        if not self.formats:
            raise ConfigError(
                "--formats", "must name at least one form", "none", f"Known: {', '.join(FORMATS)}."
            )
        if self.precisions and "onnx" not in self.formats:
            need, remedy = "needs the form onnx", "Add onnx to --formats."
            raise ConfigError("--precisions", need, " ".join(self.formats), remedy)
        if "onnx" in self.formats:
            onnx_file.require_onnx()


@dataclass(eq=False)
class Exporter:
    """One export in progress.

    Args:
        model: the model, in float32 on the CPU.
        plan: what to write.
        stored: chips of the run, where it keeps any.
        out: the directory that grows.
        console: receives progress.
    """

    model: Model
    plan: ExportPlan
    stored: quantize.StoredChips | None
    out: Path
    console: Console
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.images_NHWC = check_images(self.stored, self.model.decoder.size, self.model.networks.bands)
        found = self.model.predict_decoded(self.images_NHWC)
        self.expected: Prediction = (found.probs_NK, found.decisions_NK)
        ensemble, layout = self.model.ensemble, self.model.decoder.layout
        bands = {} if layout is None else {"bands": list(layout.names), "dtype": layout.dtype}
        self.record = {
            "format": FORMAT,
            "canopy": canopy.__version__,
            "labels": list(ensemble.labels.names),
            "thresholds": [float(threshold) for threshold in ensemble.thresholds],
            "exclusive": [list(group) for group in ensemble.exclusive],
            "members": {name: len(folds) for name, folds in self.model.networks.members.items()},
            "image_size": self.model.decoder.size,
            **bands,
            "checked_on": "random images" if self.stored is None else "chips of the run and random images",
            "versions": onnx_file.versions(("torch",)),
        }

    def run(self) -> None:
        """Write all forms, then ``export.json``.

        Raises:
            StageError: when a graph predicts otherwise than the model.
        """
        program = None
        if {"onnx", "torch"} & set(self.plan.formats):
            program = self.program(EnsembleGraph.of(self.model.ensemble, self.model.networks.members))
        if "torch" in self.plan.formats:
            assert program is not None
            self.torch_program(program)
        if "onnx" in self.plan.formats:
            assert program is not None
            self.onnx(program)
        if "hub" in self.plan.formats:
            content = hub.hub_content(self.model)
            variants = {name: folds[0].variant for name, folds in content.members.items()}
            folds = len(next(iter(content.members.values())))
            card = model_card(content.ensemble, variants, folds, content.decoder.size, content.decoder.layout)
            hub.write_hub(content, card, self.out / "hub")
            self.console.say(NAME, "hub: weights, config, preprocessor, model card")
        self.record["files"] = digests(self.out)
        files.write_json(str(self.out / "export.json"), self.record)

    def program(self, graph: MemberGraph | EnsembleGraph) -> torch.export.ExportedProgram:
        """The program of a graph over the model's chips."""
        return exported_program(graph, self.model.decoder.size, self.model.decoder.layout)

    def torch_program(self, program: torch.export.ExportedProgram) -> None:
        """Write and check ``ensemble.pt2``."""
        path = self.out / "ensemble.pt2"
        torch.export.save(program, path)
        module = torch.export.load(path).module()
        parts = []
        with torch.inference_mode():
            for rows in batches(len(self.images_NHWC)):
                probs, decisions = module(torch.from_numpy(self.images_NHWC[rows]))
                parts.append((probs.numpy(), decisions.numpy()))
        probs_NK, decisions_NK = (np.concatenate(part) for part in zip(*parts, strict=True))
        self.checked("ensemble.pt2", (probs_NK, decisions_NK))

    def onnx(self, program: torch.export.ExportedProgram) -> None:
        """Write and check all ONNX files, and put ``runtime.py`` beside them."""
        self.record["versions"] |= onnx_file.versions()
        self.record["opset"] = onnx_file.OPSET
        path = self.out / "ensemble.onnx"
        write_onnx(program, "ensemble", path, self.metadata())
        self.checked("ensemble.onnx", self.in_batches(open_session(path)))
        if self.plan.member_files:
            for name in self.model.members:
                self.member(name)
        for precision in self.plan.precisions:
            self.small(precision, path)
        shutil.copyfile(Path(__file__).with_name("runtime.py"), self.out / "runtime.py")

    def member(self, name: str) -> None:
        """Write and check one member's file."""
        graph = MemberGraph(self.model.networks.members[name])
        path = self.out / "members" / f"{name}.onnx"
        path.parent.mkdir(exist_ok=True)
        write_onnx(self.program(graph), "member", path, {"canopy.member": name} | self.metadata())
        images_NHWC = self.images_NHWC[:8]
        (probs_NFK,) = onnx_file.run_session(open_session(path), images_NHWC)
        expected_NFK = np.stack(self.model.networks(images_NHWC).probs[name], axis=1)
        gap = float(np.abs(probs_NFK - expected_NFK).max())
        parity = Parity(len(images_NHWC), gap, 0, 0, 0)
        require_parity(f"members/{name}.onnx", parity)
        self.note(f"members/{name}.onnx", parity)

    def small(self, precision: SmallPrecision, full: Path) -> None:
        """Write an ensemble in a smaller number format, and measure what it costs."""
        path = self.out / f"ensemble.{precision}.onnx"
        if precision == "float16":
            graph = EnsembleGraph.of(self.model.ensemble, self.model.networks.members, "float16")
            write_onnx(self.program(graph), "ensemble", path, self.metadata())
        else:
            assert self.stored is not None
            quantize.write_int8(full, path, self.stored.training_NHWC)
        facts: dict[str, Any] = {"bytes": path.stat().st_size, "bytes_float32": full.stat().st_size}
        got = self.in_batches(open_session(path))
        facts["check"] = compare(self.model.ensemble, self.expected, got).to_json()
        said = ""
        if self.stored is not None:
            chips_NHWC = self.stored.measured_NHWC
            both = [onnx_file.predict(open_session(each), chips_NHWC)[1] for each in (full, path)]
            loss = quantize.macro_f1_loss(self.stored.targets_NK, *both)
            facts["val"] = {"chips": len(chips_NHWC), **loss}
            said = (
                f", macro-F1 on {len(chips_NHWC):,} val chips {loss['macro_f1']:.4f} ({-loss['loss']:+.4f})"
            )
        self.record.setdefault("precisions", {})[precision] = facts
        self.console.say(NAME, f"{path.name}: {path.stat().st_size / 1e6:,.1f} MB{said}")

    def metadata(self) -> dict[str, str]:
        """Metadata of every ONNX file."""
        decoder = self.model.decoder
        return onnx_file.ensemble_metadata(self.model.ensemble, decoder.size, decoder.sensor, decoder.layout)

    def in_batches(self, session: Any) -> Prediction:
        """A session's prediction of the checked images, a batch of one among the batches."""
        parts = [
            onnx_file.predict(session, self.images_NHWC[rows]) for rows in batches(len(self.images_NHWC))
        ]
        probs_NK, decisions_NK = (np.concatenate(part) for part in zip(*parts, strict=True))
        return probs_NK, decisions_NK

    def checked(self, name: str, got: Prediction) -> None:
        """Refuse a file that predicts otherwise than the model, else record the comparison."""
        parity = compare(self.model.ensemble, self.expected, got)
        require_parity(name, parity)
        self.note(name, parity)

    def note(self, name: str, parity: Parity) -> None:
        """Record a comparison and say it."""
        self.record.setdefault("checks", {})[name] = parity.to_json()
        size = (self.out / name).stat().st_size / 1e6
        text = f"{name}: {size:,.1f} MB, probabilities within {parity.max_difference:.1e} of the model"
        self.console.say(NAME, text)


def export_run(run_dir: str, to: str, plan: ExportPlan, console: Console) -> dict[str, Any]:
    """Export a finished run.

    Args:
        run_dir: directory or URI of a finished run.
        to: directory or URI to write; it must not exist or be empty.
        plan: what to export.
        console: receives progress.

    Returns:
        The content of ``export.json``.

    Raises:
        ConfigError: when the plan or ``to`` cannot be used.
        RunDirError: when the run is not finished, or damaged.
        StageError: when an exported graph predicts otherwise than the model.
        StorageError: when ``to`` cannot be written.
    """
    plan.check()
    check_destination(to)
    model, stored = open_run(run_dir, plan)
    if "int8" in plan.precisions and stored is None:
        need, remedy = (
            "needs chips that the run keeps",
            "Leave int8 out, or raise data.max_cache_gb and prepare.",
        )
        raise ConfigError("--precisions int8", need, "a run without stored chips", remedy)
    start = time.monotonic()
    with building(to) as out:
        exporter = Exporter(model, plan, stored, out, console)
        exporter.run()
    console.say(NAME, f"written to {files.shown(to)} in {time.monotonic() - start:.0f} s")
    return exporter.record


def open_run(run_dir: str, plan: ExportPlan) -> tuple[Model, quantize.StoredChips | None]:
    """The planned model of a finished run, in float32 on the CPU, and the chips that the run keeps."""
    model = load_model(
        run_dir, members=plan.members, max_members=plan.max_members, device="cpu", precision="float32"
    )
    stored = quantize.stored_chips(RunDir(files.absolute(run_dir)), model.labels.names)
    return model, stored


def digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file in a directory, by its relative path."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        found[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    return found
