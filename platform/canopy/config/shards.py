"""Data sets in shards: WebDataset's tar files, and the Parquet files of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence

from canopy.config.bands import BandConfig
from canopy.config.section import Section
from canopy.errors import ConfigError

SHARD_SOURCES = ("webdataset", "huggingface")
"""Sources that read ``data.shards``."""


class ShardsConfig(Section):
    """Members or columns of a sample in a shard (``data.source: webdataset`` and ``huggingface``)."""

    image: str | None = None
    """The image of a sample. WebDataset: the ending of its member, such as ``jpg`` or ``rgb.tif``; None: the
    one member that ends as an image does. Hugging Face: its column; None: ``image``."""
    labels: str | None = None
    """The labels of a sample. WebDataset: the ending of a member (``cls``), or a field of the ``json``
    member; None: the field ``labels``, or ``cls`` where there is no ``json``. Hugging Face: its column; None:
    ``labels``."""
    names: tuple[str, ...] = ()
    """Names of the labels that samples give as numbers, from number 0 on; empty: those of the hub's
    ClassLabel."""
    id: str | None = None
    """Field of the ``json`` member, or column, with the image's unique name; None: the shard and the key, or
    the row."""
    group: str | None = None
    """Field or column of the group (a scene, a flight): rows of one group stay in one split; None: none."""
    splits: bool = True
    """Whether a shard's name or folder that begins with train, val, validation, dev or test gives the split
    of its images; all others are split at random."""


def check_shards(config: ShardsConfig, source: str, bands: Sequence[BandConfig]) -> None:
    """Check the options of shards against the source and the bands.

    Raises:
        ConfigError: when the source does not read them, a name stands twice or is empty, or a band lies in a
            file of its own.
    """
    if source not in SHARD_SOURCES:
        for name, value in config:
            if value != getattr(ShardsConfig(), name):
                need = f"must not be set under data.source {source}, which does not read it"
                raise ConfigError(f"data.shards.{name}", need, repr(value), "Remove it.")
        return
    for number, name in enumerate(config.names):
        if not name.strip() or name in config.names[:number]:
            need = "must give each number a name of its own"
            raise ConfigError("data.shards.names", need, f"{name!r} for number {number}", "Correct the list.")
    apart = next((band for band in bands if band.file is not None), None)
    if apart is not None:
        need = f"must not be set under data.source {source}: a sample has one image file"
        raise ConfigError(f"data.bands: {apart.name}.file", need, apart.file, "Give the number of the band.")
