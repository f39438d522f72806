"""Made-up shards: WebDataset's tar files, and the hub's Parquet files."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def jpeg(seed: int, side: int = 16) -> bytes:
    """A random image as a JPEG file."""
    stream = io.BytesIO()
    pixels_HWC = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels_HWC).save(stream, "JPEG")
    return stream.getvalue()


def write_tar(path: Path, samples: Sequence[tuple[str, Mapping[str, Any]]], mode: str = "w") -> Path:
    """Write samples, each a key and the content of its members by ending: bytes, text, or a JSON value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for key, members in samples:
            for ending, content in members.items():
                data = content if isinstance(content, bytes) else str(content).encode()
                if ending == "json" and not isinstance(content, bytes):
                    data = json.dumps(content).encode()
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return path


def write_parquet(path: Path, columns: Mapping[str, Any], features: Mapping[str, Any] | None = None) -> Path:
    """Write columns as a file of the hub; ``features`` go into its metadata as datasets writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(dict(columns))
    if features is not None:
        described = json.dumps({"info": {"features": features}}).encode()
        table = table.replace_schema_metadata({"huggingface": described})
    pq.write_table(table, path)
    return path
