"""Options of shards: read by their sources alone, and left out of fingerprints where they are not set."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from canopy.config import DataConfig, ShardsConfig, fingerprint_content
from canopy.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"source": "folders", "shards": {"image": "jpg"}},
            r"data\.shards\.image must not be set under data\.source folders",
        ),
        ({"shards": {"splits": False}}, r"data\.shards\.splits must not be set under data\.source generated"),
        (
            {"source": "webdataset", "bands": [{"name": "red", "file": "{id}.tif"}]},
            r"red\.file must not be set under data\.source webdataset: a sample has one image file",
        ),
        (
            {"source": "webdataset", "shards": {"names": ["a", "b", "a"]}},
            r"data\.shards\.names must give each number a name of its own\. Got: 'a' for number 2",
        ),
        (
            {"source": "huggingface", "bands": [{"name": "red", "column": "x"}]},
            "must be read from a table",
        ),
    ],
)
def test_options_that_no_source_reads_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ValidationError), match=message):
        DataConfig.model_validate(given)


def test_bands_of_one_file_and_options_are_taken() -> None:
    config = DataConfig.model_validate(
        {"source": "webdataset", "shards": {"image": "tif"}, "bands": [{"name": "nir", "band": 4}]}
    )
    assert config.shards == ShardsConfig(image="tif")
    assert fingerprint_content(config)["shards"]["image"] == "tif"
    assert "shards" not in fingerprint_content(DataConfig())
