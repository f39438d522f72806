"""Settings of the tests of evidence maps."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Networks of this size are slower with more threads."""
    torch.set_num_threads(1)
