"""Paths and URIs by row."""

from __future__ import annotations

import pickle

import numpy as np

from canopy.data.loading.uri_list import UriList

NAMES = [f"s3://bucket/chips/ä-{n}.jpg" for n in range(10_000)]


def test_uris_are_returned_by_row() -> None:
    uris = UriList(NAMES)
    assert len(uris) == 10_000
    assert uris.at(np.array([7, 0, 7, 9_999])) == [NAMES[7], NAMES[0], NAMES[7], NAMES[9_999]]
    assert uris.at(np.array([], np.int64)) == []
    assert len(UriList([])) == 0


def test_pickling_shares_the_strings_as_buffers() -> None:
    """The message is small; the strings are buffers, which the object store shares."""
    buffers: list[pickle.PickleBuffer] = []
    message = pickle.dumps(UriList(NAMES), protocol=5, buffer_callback=buffers.append)
    assert len(message) < 1_000
    assert pickle.loads(message, buffers=buffers).at(np.array([3])) == [NAMES[3]]
