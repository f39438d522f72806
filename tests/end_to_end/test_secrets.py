"""Credentials in addresses reach no file of a run directory and no line of output."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.test_errors import PUBLIC, SECRETS

from canopy.config import Experiment, derive
from canopy.runtime.console import Console
from canopy.runtime.logging import configure_logging
from canopy.storage import files
from canopy.storage.run_dir import RunDir

planted = pytest.mark.parametrize("address", SECRETS.values(), ids=SECRETS)


@planted
def test_an_address_with_credentials_is_refused_where_it_enters(
    address: str, tmp_path: Path, tiny: Experiment
) -> None:
    run_dir = RunDir(str(tmp_path / "run"))
    run_dir.store_config(tiny)
    attempts: list[Callable[[], object]] = [
        lambda: RunDir(address),
        lambda: run_dir.claim("a" * 64, 10, address),
        lambda: run_dir.store_config(derive(tiny, data=derive(tiny.data, root=address))),
        lambda: run_dir.store_config(derive(tiny, tracking=derive(tiny.tracking, mlflow_uri=address))),
        lambda: files.write_bytes(address, b""),
        lambda: files.read_bytes(address),
    ]
    for attempt in attempts:
        with pytest.raises(ValueError, match=r"credentials|must be one that Canopy can read") as error:
            attempt()
        assert "planted" not in files.shown(str(error.value)).lower()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"preset: tiny" in written
    assert b"planted" not in written.lower()


@planted
def test_an_address_with_credentials_is_masked_in_what_people_read(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("driver")
    Console().say("train", f"writing to {address}")
    logging.getLogger("canopy.tests").warning("cannot write to %s", address)
    out, err = capsys.readouterr()
    assert "writing to" in out
    assert "cannot write to" in err
    assert "planted" not in (out + err).lower() or "%5F" in address


@pytest.mark.parametrize(
    "address", [one for one in PUBLIC if one.startswith(("s3://bucket/runs", "abfs", "/"))]
)
def test_an_address_without_credentials_is_stored(address: str, tmp_path: Path) -> None:
    run_dir = RunDir(str(tmp_path))
    run_dir.claim("a" * 64, 10, address)
    record = run_dir.read_data()
    assert record is not None
    assert record.root == address
