"""Files that make Prometheus read Ray's and Canopy's metrics, and Grafana show them.

::

    OUT/prometheus.yml                        scrapes every node of Ray's service discovery file
    OUT/alerts.yml                            rules from platform/deploy/monitoring
    OUT/grafana/grafana.ini                   anonymous viewers on loopback; the dashboard embeds its panels
    OUT/grafana/provisioning/datasources/     Prometheus
    OUT/grafana/provisioning/dashboards/      the folders of Ray's and of Canopy's dashboards
    OUT/grafana/dashboards/                   Canopy's dashboards
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from canopy.errors import ConfigError

FILES = Path(__file__).parent / "files"
"""Alert rules and dashboards: a link to platform/deploy/monitoring, which a wheel replaces by the files."""
DISCOVERY_FILE = "prom_metrics_service_discovery.json"
"""File in Ray's session directory with the addresses of all nodes; the dashboard keeps it current."""
DEFAULT_SESSION = Path("/tmp/ray/session_latest")
RAY_DASHBOARDS = Path("metrics", "grafana", "dashboards")
"""Where Ray's dashboard writes Ray's own dashboards for Grafana, below the session directory."""
SCRAPE_EVERY = "10s"
DATASOURCE = "Prometheus"
"""Name of the data source that Ray's embedded panels ask for (``RAY_PROMETHEUS_NAME``)."""


@dataclass(frozen=True)
class MonitoringPlan:
    """Where the files lie and the servers listen.

    Args:
        out: folder for the files.
        session: directory of Ray's session; the default is a link that follows the newest one.
        prometheus_port: port of Prometheus on loopback.
        grafana_port: port of Grafana on loopback.
    """

    out: Path
    session: Path = DEFAULT_SESSION
    prometheus_port: int = 9090
    grafana_port: int = 3000

    @property
    def prometheus_url(self) -> str:
        """Address of Prometheus."""
        return f"http://127.0.0.1:{self.prometheus_port}"

    @property
    def grafana_url(self) -> str:
        """Address of Grafana."""
        return f"http://127.0.0.1:{self.grafana_port}"


def write_files(plan: MonitoringPlan) -> None:
    """Write all files; files of an earlier call are replaced.

    Raises:
        ConfigError: when Ray's session or the folder cannot be used.
    """
    if not plan.session.is_dir() and plan.session != DEFAULT_SESSION:
        need, remedy = (
            "must be the directory of Ray's session",
            "Start Ray first; see TEMP_DIR/session_latest.",
        )
        raise ConfigError("--session", need, str(plan.session), remedy)
    grafana = plan.out.absolute() / "grafana"
    try:
        for folder in ("dashboards", "provisioning/datasources", "provisioning/dashboards"):
            (grafana / folder).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(FILES / "alerts.yml", plan.out / "alerts.yml")
        for board in FILES.glob("*.json"):
            shutil.copyfile(board, grafana / "dashboards" / board.name)
        write_yaml(plan.out / "prometheus.yml", prometheus_config(plan))
        write_yaml(grafana / "provisioning" / "datasources" / "canopy.yml", datasources(plan))
        write_yaml(grafana / "provisioning" / "dashboards" / "canopy.yml", dashboard_folders(plan))
        (grafana / "grafana.ini").write_text(grafana_ini(plan), "utf-8")
    except OSError as error:
        raise ConfigError(
            "--out", "must be a folder that can be written", error, "Give another one."
        ) from None


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` in the order of its keys."""
    path.write_text(
        "# Written by `canopy monitor`.\n" + yaml.safe_dump(dict(content), sort_keys=False), "utf-8"
    )


def prometheus_config(plan: MonitoringPlan) -> dict[str, Any]:
    """Content of ``prometheus.yml``."""
    # Prometheus notices changes of the file itself, but not that session_latest leads to another directory.
    discovery = {"files": [str(plan.session.absolute() / DISCOVERY_FILE)], "refresh_interval": "30s"}
    return {
        "global": {"scrape_interval": SCRAPE_EVERY, "evaluation_interval": SCRAPE_EVERY},
        "rule_files": [str(plan.out.absolute() / "alerts.yml")],
        "scrape_configs": [{"job_name": "ray", "file_sd_configs": [discovery]}],
    }


def datasources(plan: MonitoringPlan) -> dict[str, Any]:
    """Grafana's data sources."""
    prometheus = {"name": DATASOURCE, "type": "prometheus", "url": plan.prometheus_url, "access": "proxy"}
    return {"apiVersion": 1, "datasources": [{**prometheus, "isDefault": True}]}


def dashboard_folders(plan: MonitoringPlan) -> dict[str, Any]:
    """Grafana's folders: Ray's own dashboards, and Canopy's beside them."""
    folders = {
        "Ray": plan.session.absolute() / RAY_DASHBOARDS,
        "Canopy": plan.out.absolute() / "grafana" / "dashboards",
    }
    providers = [
        {"name": name, "folder": name, "type": "file", "options": {"path": str(path)}}
        for name, path in folders.items()
    ]
    return {"apiVersion": 1, "providers": providers}


def grafana_ini(plan: MonitoringPlan) -> str:
    """Content of ``grafana.ini``: anybody who reaches it on loopback may look and change nothing."""
    return "\n".join(
        (
            "; Written by `canopy monitor`.",
            "[server]",
            "http_addr = 127.0.0.1",
            f"http_port = {plan.grafana_port}",
            "[security]",
            "allow_embedding = true",
            "[auth.anonymous]",
            "enabled = true",
            "org_role = Viewer",
            "[paths]",
            f"data = {plan.out.absolute() / 'grafana' / 'data'}",
            f"provisioning = {plan.out.absolute() / 'grafana' / 'provisioning'}",
            "",
        )
    )


def next_steps(plan: MonitoringPlan) -> list[str]:
    """Commands that start what reads the files, and what Ray must know of them."""
    grafana = ["grafana", "server", "--homepath", "/usr/share/grafana"]
    grafana += ["--config", f"{plan.out}/grafana/grafana.ini"]
    variables = f"RAY_PROMETHEUS_HOST={plan.prometheus_url} RAY_GRAFANA_HOST={plan.grafana_url}"
    return [
        f"Prometheus: {shlex.join(prometheus_command(plan, 'prometheus'))}",
        f"Grafana:    {shlex.join(grafana)}",
        f"Ray:        start its head with {variables}, and its dashboard's Metrics page is filled",
    ]


def prometheus_command(plan: MonitoringPlan, program: str) -> list[str]:
    """The command that starts Prometheus on loopback."""
    return [
        program,
        f"--config.file={plan.out}/prometheus.yml",
        f"--storage.tsdb.path={plan.out}/prometheus-data",
        f"--web.listen-address=127.0.0.1:{plan.prometheus_port}",
    ]


def start_prometheus(plan: MonitoringPlan) -> None:
    """Become Prometheus; this process ends as Prometheus does.

    Raises:
        ConfigError: when there is no ``prometheus`` on ``PATH``.
    """
    program = shutil.which("prometheus")
    if program is None:
        remedy = "Install it (Debian: apt install prometheus), or leave --start out and start it elsewhere."
        raise ConfigError("--start", "needs the program prometheus on PATH", "none", remedy)
    os.execv(program, prometheus_command(plan, program))
