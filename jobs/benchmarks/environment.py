"""Environment variables of every benchmark; import this before numpy, torch and Ray.

Each contender gets cores as processes, so every process computes with one thread. The benchmarks start a
private Ray on loopback, so they switch its token authentication off.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
