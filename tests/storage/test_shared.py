"""Shared storage: two real nodes, one of which sees another directory under the run directory's name."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clusters import Nodes
from tests.support import REPOSITORY

from canopy.errors import ConfigError
from canopy.storage.shared import Evidence, Place, SharedStorage, refuse_unshared

OWN_DIRECTORY = "/proc/self/cwd"
"""Leads every process to its own working directory. Ray's workers inherit that of their node."""
CHECK = """
import os, sys
from canopy.cli.exit_status import run_job
from canopy.runtime.cluster import connect
from canopy.storage.shared import Place, SharedStorage

def check(paths):
    connect()
    storage = SharedStorage([Place("--run-dir", paths[0], True), Place("--data.root", paths[1], False)])
    storage.check()
    print("shared by", len(storage._checked), "nodes")

sys.exit(run_job(check, sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canopy.storage.shared.PAUSE_S", 0.0)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[tuple[Nodes, Path, Path]]:
    """A private cluster of two nodes, and their working directories."""
    with tempfile.TemporaryDirectory(prefix="cshr", ignore_cleanup_errors=True) as folder:
        homes = [Path(folder, name) for name in ("first", "second")]
        for home in homes:
            home.mkdir()
        before = Path.cwd()
        try:
            os.chdir(homes[0])
            cluster = Nodes(folder)
            os.chdir(homes[1])
            cluster.add()
        finally:
            os.chdir(before)
        yield cluster, homes[0], homes[1]
        cluster.close()


def node_address(cluster: Nodes) -> str:
    """The IP address of both nodes."""
    return cluster.address.partition(":")[0]


def run(cluster: Nodes, home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A driver with the working directory of the first node."""
    env = os.environ | {"RAY_ADDRESS": cluster.address, "PYTHONPATH": str(REPOSITORY / "platform")}
    return subprocess.run([sys.executable, *command], cwd=home, env=env, capture_output=True, text=True)


def test_a_directory_that_both_nodes_see(two_nodes: tuple[Nodes, Path, Path], tmp_path: Path) -> None:
    cluster, home, _ = two_nodes
    data = tmp_path / "data"
    data.mkdir()
    (data / "train_v2.csv").write_text("image_name,tags\n")
    done = run(cluster, home, "-c", CHECK, str(tmp_path / "run"), str(data))
    assert (done.returncode, done.stdout) == (0, "shared by 2 nodes\n"), done.stderr
    assert list((tmp_path / "run").iterdir()) == []


def test_the_pipeline_refuses_a_run_directory_of_one_node(two_nodes: tuple[Nodes, Path, Path]) -> None:
    cluster, home, other = two_nodes
    job = str(REPOSITORY / "jobs" / "pipeline.py")
    done = run(cluster, home, job, "--preset", "demo", "--run-dir", f"{OWN_DIRECTORY}/run")
    assert done.returncode == 2, done.stderr
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("error: ")]
    assert line.startswith(
        f"error: --run-dir must be on storage that all nodes of the cluster share. Got: {OWN_DIRECTORY}/run, "
        f"but node {node_address(cluster)} does not see what this job wrote there. Give a directory of "
    )
    assert "more node" not in line, "the first node has the driver's directory"
    assert list(home.iterdir()) == list(other.iterdir()) == [], "nothing has begun"


@pytest.mark.slow
def test_a_data_set_that_differs_on_one_node(two_nodes: tuple[Nodes, Path, Path], tmp_path: Path) -> None:
    cluster, home, other = two_nodes
    for place, text in ((home, "a,b\n"), (other, "a,b,c\n")):
        (place / "train.csv").write_text(text)
    try:
        done = run(cluster, home, "-c", CHECK, str(tmp_path / "run"), OWN_DIRECTORY)
    finally:
        for place in (home, other):
            (place / "train.csv").unlink()
    assert done.returncode == 2
    assert "--data.root must be on storage that all nodes" in done.stderr
    assert "finds another directory under that name, without this job's train.csv" in done.stderr


def test_a_place_that_a_node_may_not_write(tmp_path: Path) -> None:
    evidence = Evidence.leave(Place("--run-dir", str(tmp_path), written=True))
    assert evidence is not None
    assert evidence.problem_on("n" * 300) == "cannot write there (File name too long)"
    assert evidence.problem_on("node") is None
    assert evidence.problem_of_answer("node") is None
    assert evidence.problem_of_answer("other") == "writes to another place under that name"
    evidence.remove(["node", "never-written"])
    assert not list(tmp_path.iterdir())


def test_a_data_set_is_compared_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels.csv").write_text("x")
    evidence = Evidence.leave(Place("--data.root", str(tmp_path), written=False))
    assert evidence is not None
    assert evidence.sizes == {"images": -1, "labels.csv": 1}
    assert evidence.problem_on("node") is None
    (tmp_path / "labels.csv").write_text("xy")
    assert evidence.problem_on("node") is not None
    evidence.remove(["node"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "labels.csv"]
    assert Evidence.leave(Place("--data.root", str(tmp_path / "none"), written=False)) is None


@pytest.mark.usefixtures("s3_here")
def test_an_object_store(tmp_path: Path) -> None:
    import boto3  # type: ignore[import-untyped]

    boto3.client("s3").create_bucket(Bucket="probed")
    place = Place("--run-dir", "s3://probed/run", written=True)
    evidence = Evidence.leave(place)
    assert evidence is not None
    assert evidence.problem_on("node") is evidence.problem_of_answer("node") is None
    evidence.remove(["node"])
    left = boto3.client("s3").list_objects_v2(Bucket="probed").get("Contents", [])
    assert [one["Key"] for one in left] in ([], ["run/"]), "at most the mark of the directory"
    with pytest.raises(ConfigError, match=r"must be readable and writable on all nodes.*role"):
        refuse_unshared(place, [("10.0.0.2", "cannot read there (denied)")])


def test_the_error_names_node_path_and_remedy() -> None:
    place = Place("--run-dir", "/scratch/run", written=True)
    refuse_unshared(place, [("10.0.0.1", None), ("10.0.0.2", None)])
    with pytest.raises(ConfigError) as error:
        refuse_unshared(place, [("10.0.0.1", None), ("10.0.0.2", "does not see it"), ("10.0.0.2", "neither")])
    assert str(error.value) == (
        "--run-dir must be on storage that all nodes of the cluster share. Got: /scratch/run, but node "
        "10.0.0.2 does not see it; 1 more node(s) likewise. Give a directory of a file system that all nodes "
        "mount, or the URI of an object store (s3://…)."
    )


@pytest.mark.usefixtures("ray_here")
def test_one_node_is_not_probed(tmp_path: Path) -> None:
    SharedStorage([Place("--run-dir", str(tmp_path / "run"), written=True)]).check()
    assert not (tmp_path / "run").exists()
