"""The command ``canopy monitor``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from canopy.cli.options import read_options
from canopy.errors import ConfigError

MONITOR = "Set up Prometheus and Grafana for Ray's and Canopy's metrics; --start also starts Prometheus"


@dataclass(frozen=True)
class MonitorOptions:
    """Options of ``monitor``."""

    out: str = "monitoring"
    """Folder for the configuration of Prometheus and Grafana."""
    session: str = "/tmp/ray/session_latest"
    """Directory of Ray's session on the head node; the default follows the newest one."""
    start: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Start the program prometheus, which must be on PATH, and stay with it until Ctrl-C."""
    port: int = 9090
    """Port of Prometheus on 127.0.0.1."""
    grafana_port: int = 3000
    """Port of Grafana on 127.0.0.1."""


def monitor(argv: Sequence[str], prog: str) -> None:
    """Write the files, and start Prometheus with ``--start``.

    Raises:
        ConfigError: see :mod:`canopy.monitoring.setup`.
    """
    options = read_options(MonitorOptions, argv, MONITOR, prog)
    from canopy.monitoring.setup import MonitoringPlan, next_steps, start_prometheus, write_files

    for name, port in (("--port", options.port), ("--grafana-port", options.grafana_port)):
        if not 0 < port < 1 << 16:
            raise ConfigError(name, "must be a port, 1 to 65535", port, "Give another one.")
    plan = MonitoringPlan(Path(options.out), Path(options.session), options.port, options.grafana_port)
    write_files(plan)
    print(f"{plan.out}: configuration of Prometheus and Grafana, alert rules, dashboards", flush=True)
    print(*next_steps(plan), sep="\n", flush=True)
    if options.start:  # this process becomes Prometheus
        print(f"Prometheus starts at {plan.prometheus_url}", flush=True)
        start_prometheus(plan)
