"""The whole pipeline where the run directory, the data root, the files and the labels have awkward names."""

from __future__ import annotations

from pathlib import Path

import boto3  # type: ignore[import-untyped]
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.support import tiny_experiment, write_config

from canopy.config import DataConfig, derive
from canopy.storage import files
from jobs import pipeline, predict, status

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_here")]

CHIPS, SIZE = 130, 32
NAMES = {
    "unicode": "ünï 森林 🌲",
    "blanks": "two  blanks and more",
    "hash": "a#b",
    "percent": "100%25 %20",
    "question": "who? what",
    "quotes": "quo\"te's",
    "dash": "-rf",
    "formula": "=1+1",
    "long": "x" * 200,
}


def write_source(root: Path, name: str) -> None:
    """A Parquet table with lists of labels beside a directory of images; ``name`` is in every name."""
    (root / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    file_names, labels = [], []
    for n in range(CHIPS):
        file_names.append(f"{name}{n}.png")
        labels.append([f"{name} {'even' if n % 2 else 'odd'}", *([name] if n % 3 else [])])
        chip = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) // (2 if n % 2 else 1)
        Image.fromarray(chip.astype(np.uint8)).save(root / name / file_names[-1])
    pq.write_table(pa.table({"file": file_names, "labels": labels}), root / f"{name}.parquet")


def upload(folder: Path, bucket: str) -> str:
    """Copy a directory into a new bucket; its URI."""
    client = boto3.client("s3")
    client.create_bucket(Bucket=bucket)
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, str(path.relative_to(folder)))
    return f"s3://{bucket}"


@pytest.mark.parametrize("place", ["local", "s3"])
@pytest.mark.parametrize("kind", list(NAMES))
def test_any_name_goes_the_whole_way(
    kind: str, place: str, tmp_path: Path, s3_here: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = NAMES[kind]
    write_source(tmp_path / name / "data", name)
    home = str(tmp_path) if place == "local" else upload(tmp_path, f"names-{kind}")
    root, run = files.join(home, name, "data"), files.join(home, name, "run")
    table = {"id": "file", "path": "file", "labels": "labels"}
    config = derive(
        tiny_experiment(variants=1, trials=0, epochs=1),
        data=DataConfig.model_validate(
            {
                "source": "table",
                "csv": f"{name}.parquet",
                "images": name,
                "table": table,
                "image_size": SIZE,
                "val_fraction": 0.35,
                "test_fraction": 0.25,
            }
        ),
    )
    file = write_config(config, tmp_path / "c.yaml")
    arguments = ["--config", str(file), "--data.root", root, "--run-dir", run]

    assert pipeline.main(arguments) == 0, capsys.readouterr().err
    summary = files.read_json(files.join(run, "summary.json"))
    assert set(summary["data"]["labels"]) == {name, f"{name} even", f"{name} odd"}
    assert files.exists(files.join(run, "report", "index.html"))

    marks = {path for path in files.list_files(run, recursive=True) if path.endswith("done.json")}
    before = {path: files.read_bytes(files.join(run, path)) for path in marks}
    assert pipeline.main(arguments) == 0
    assert {path: files.read_bytes(files.join(run, path)) for path in marks} == before, (
        "nothing is done again"
    )

    for suffix in ("parquet", "csv"):
        out = files.join(home, name, f"{name[:190]}.{suffix}")
        options = ["--model", run, "--images", files.join(root, name), "--out", out]
        assert predict.main(options) == 0, capsys.readouterr().err
    found = files.read_table(files.join(home, name, f"{name[:190]}.parquet"))
    assert set(found["id"].to_pylist()) == {f"{name}{n}.png" for n in range(CHIPS)}
    assert {f"prob:{name}", name} <= set(found.column_names)

    capsys.readouterr()
    assert status.main([run]) == 0
    assert "report   done" in capsys.readouterr().out
