"""Environment variables of every benchmark; import this before numpy, torch and Ray.

A contender uses several cores through several processes, so each process computes with one thread. The
benchmarks start a private Ray on the loopback interface, so token authentication is off. Canopy sets the
variables that Ray reads when it is imported; without them, Ray under ``uv run`` starts each worker by
``uv run``.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import canopy  # noqa: F401  (sets the variables that Ray reads when it is imported)
