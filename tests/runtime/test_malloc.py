"""The allocator keeps freed memory; measured in separate processes."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys
import numpy as np
from canopy.runtime.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for turn in range(12):
    if turn == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(40 << 20, np.uint8)  # more than the C library keeps by default
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not GNU's: no effect")
def test_reused_memory_causes_no_page_faults() -> None:
    def faults(what: str) -> int:
        command = [sys.executable, "-c", COUNT_FAULTS, what]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert faults("keep") < 0.05 * faults("leave")
