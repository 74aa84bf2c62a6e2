"""The processes of a fault run on the log: each can be killed at any moment and is started again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bento_cases import write_iris
from contracts.services import NOBODY, Cluster, _binary, _unprivileged, eventually, free_port
from slipway.adapters.postgres import migrate
from slipway.settings import PROJECT_DIR

SERVING_PYTHON = PROJECT_DIR / "bentos" / ".venv" / "bin" / "python"
PYTHONPATH = os.pathsep.join(str(PROJECT_DIR / name) for name in ("include", "bentos", "tests"))


class Part:
    """One process and whatever it starts; `ensure` starts it when it is not running."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def command(self) -> tuple[list[str], dict[str, str], Path]:
        raise NotImplementedError

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def ensure(self) -> None:
        if not self.alive():
            command, environment, cwd = self.command()
            self.starts += 1
            with (self.folder / f"{self.name}.log").open("ab") as log:
                self.process = subprocess.Popen(
                    command, env={**os.environ, **environment}, cwd=cwd, stdout=log, stderr=log
                )

    def kill(self) -> bool:
        """`kill -9`; False if there was nothing to kill."""
        if self.process is None or not self.alive():
            return False
        self.process.kill()
        self.process.wait()
        return True

    def stop(self) -> None:
        if self.process is not None and self.alive():
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Bento(Part):
    """`bentoml serve` of the iris bento with a real spool; `extra` are more of its settings.

    Attributes:
        prefix: a command that runs it, to set limits.
    """

    name = "bento"

    def __init__(self, folder: Path, spool: Path, **extra: str) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.spool = spool
        self.artefacts = write_iris(folder / "artefacts")
        self.extra = extra
        self.prefix: list[str] = []

    def command(self) -> tuple[list[str], dict[str, str], Path]:
        environment = {
            "BENTOML_HOME": str(self.folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "SLIPWAY_ARTEFACTS_DIR": str(self.artefacts),
            "SLIPWAY_SLOT": "blue",
            "SLIPWAY_SPOOL_DIR": str(self.spool),
            **self.extra,
        }
        command = [
            *self.prefix,
            str(SERVING_PYTHON),
            "-m",
            "bentoml",
            "serve",
            "service:Predictor",
            "--host",
            "127.0.0.1",
        ]
        options = ["--port", str(self.port), "--api-workers", "1", "--timeout-graceful-shutdown", "5"]
        return command + options, environment, PROJECT_DIR / "bentos"

    def kill_worker(self) -> bool:
        """`kill -9` of the process that answers; its parent starts another one."""
        if self.process is None:
            return False
        try:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)
        except (OSError, IndexError):
            return False
        return True


class Keeper(Part):
    """The real keeper; without slots and gateway only its work on the log can succeed."""

    name = "keeper"

    def __init__(self, folder: Path, postgres_port: int) -> None:
        super().__init__(folder)
        self.environment = {
            "SLIPWAY_HOME": str(folder),
            "SLIPWAY_POSTGRES_PORT": str(postgres_port),
            "SLIPWAY_KEEPER_METRICS_PORT": str(free_port()),
            "SLIPWAY_ENVOY_ADMIN_PORT": str(free_port()),
            "SLIPWAY_SUPERVISOR_PORT": str(free_port()),
            "SLIPWAY_KEEPER_INTERVAL_SECONDS": "0.1",
            "SLIPWAY_POSTGRES_PASSWORD": "none",
            "SLIPWAY_SUPERVISOR_PASSWORD": "none",
            "PYTHONPATH": PYTHONPATH,
        }

    def command(self) -> tuple[list[str], dict[str, str], Path]:
        return [sys.executable, "-c", "from slipway.keeper import main; main()"], self.environment, self.folder


class Loop(Part):
    """One of the loops below, over the run's lake."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder)
        self.name = name

    def command(self) -> tuple[list[str], dict[str, str], Path]:
        command = [sys.executable, __file__, self.name, str(self.folder / "lake"), str(self.folder / "reads")]
        return command, {"PYTHONPATH": PYTHONPATH}, self.folder


class Postgres(Part):
    """A cluster of its own, since it is killed without mercy."""

    name = "postgres"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        home = folder / "postgres"
        home.mkdir()
        if os.geteuid() == 0:
            os.chown(home, NOBODY, NOBODY)
        self.cluster = Cluster(home / "data", free_port())
        command = [_binary("initdb"), "-D", str(home / "data"), "-U", "slipway", "--auth=trust", "--no-sync"]
        subprocess.run([*_unprivileged(), *command, "--locale=C"], check=True, stdout=subprocess.DEVNULL, cwd=home)
        self.ensure()
        eventually(lambda: self.cluster.execute("create database slipway") is None, what="Postgres")
        migrate(self.cluster.url("slipway"))

    def command(self) -> tuple[list[str], dict[str, str], Path]:
        options = ["-p", str(self.cluster.port), "-h", "127.0.0.1", "-k", "", "-c", "shared_buffers=16MB"]
        return [*_unprivileged(), _binary("postgres"), "-D", str(self.cluster.folder), *options], {}, self.folder

    def stop(self) -> None:
        if self.process is not None and self.alive():
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(20)


def compaction(lake: Path) -> None:
    """Merge whatever there is, over and over, with a second of grace; as if every hour and date were over."""
    from slipway.adapters.log_folders import LogFolders

    folders = LogFolders(str(lake))
    while True:
        with folders.exclusive() as alone:
            for folder in folders.all() if alone else ():
                if random.random() < 0.3:
                    folders.merge_day(folder)
                else:
                    folders.merge_hours(folder, folder.ends)
                folders.sweep(folder, datetime.now(UTC) - timedelta(seconds=1))
        time.sleep(random.random())


def reading(lake: Path, reads: Path) -> None:
    """Read everything, over and over; one line per read: rows, rows that came twice, requests with a row too few."""
    from slipway.adapters.lake import ParquetLake

    while True:
        now = datetime.now(UTC)
        frame = ParquetLake(str(lake)).predictions("iris", now - timedelta(days=1), now + timedelta(days=1))
        twice = int(frame.duplicated(["request_id", "row"]).sum())
        rows = frame.groupby("request_id")["row"].agg(["count", "max"])
        torn = int((rows["count"] != rows["max"] + 1).sum())
        with reads.open("a") as file:
            file.write(json.dumps([len(frame), twice, torn]) + "\n")
        time.sleep(0.2)


if __name__ == "__main__":
    if sys.argv[1] == "compaction":
        compaction(Path(sys.argv[2]))
    else:
        reading(Path(sys.argv[2]), Path(sys.argv[3]))
