"""A Docker daemon of the tests' own, beside whatever runs on the machine, and the client that talks to it.

It keeps its images below the project's `var/`, so a second run finds them; containers, volumes and networks end with
the test. Where a daemon runs already (a CI service, a laptop) that one is used.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from slipway.settings import PROJECT_DIR

__all__ = ["Docker", "DockerError", "own_daemon"]

HOME = PROJECT_DIR / "var" / "compose"
INSTALL = "Debian: apt-get install docker.io docker-compose debootstrap iptables"
MACHINE_SOCKET = Path("/var/run/docker.sock")
START_SECONDS = 60.0
STOP_SECONDS = 60.0


class DockerError(RuntimeError):
    """No Docker can run here; the message is one line that says why."""


class Docker:
    """`docker` and `docker compose` against one daemon."""

    def __init__(self, socket: Path, compose: list[str], environment: dict[str, str]) -> None:
        env_file = environment.get("SLIPWAY_ENV_FILE")
        self._compose = [*compose, *(["--env-file", env_file] if env_file else [])]
        self.environment = {**environment, "DOCKER_HOST": f"unix://{socket}", "SLIPWAY_DOCKER_SOCKET": str(socket)}

    def __call__(self, *arguments: str, check: bool = True, timeout: float = 600, stdin: str | None = None) -> str:
        """The standard output of a `docker` command."""
        return self._run(["docker", *arguments], check, timeout, stdin)

    def compose(self, *arguments: str, check: bool = True, timeout: float = 600) -> str:
        """The standard output of a compose command on the project's file."""
        return self._run([*self._compose, *arguments], check, timeout, None)

    def _run(self, command: list[str], check: bool, timeout: float, stdin: str | None) -> str:
        done = subprocess.run(
            command,
            cwd=PROJECT_DIR,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            input=stdin,
            check=False,
        )
        if check and done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-30:])
            raise AssertionError(f"{' '.join(command[:6])} … ended with {done.returncode}:\n{tail}")
        return done.stdout


def _compose_command() -> list[str]:
    if shutil.which("docker") is None:
        raise DockerError(f"docker is not installed ({INSTALL})")
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise DockerError(f"neither `docker compose` nor docker-compose is installed ({INSTALL})")


@contextlib.contextmanager
def own_daemon(environment: dict[str, str]) -> Iterator[Docker]:
    """The machine's Docker if one runs, or else one with its own folder and socket, stopped at the end.

    Raises:
        DockerError: none can run here.
    """
    compose = _compose_command()
    variables = {**os.environ, "COMPOSE_PROJECT_NAME": "slipway", "DOCKER_BUILDKIT": "0", **environment}
    variables["COMPOSE_DOCKER_CLI_BUILD"] = "0"
    machines = Docker(MACHINE_SOCKET, compose, variables)
    if MACHINE_SOCKET.exists() and _answers(machines):
        _refuse_to_share(machines)
        yield machines
        return
    if shutil.which("dockerd") is None:
        raise DockerError(f"no Docker runs and dockerd is not installed ({INSTALL})")
    if os.geteuid() != 0:
        raise DockerError("no Docker runs that this user may speak to, and one of the test's own needs root")
    HOME.mkdir(parents=True, exist_ok=True)
    # The path of a socket may have 107 bytes, which a deep checkout would use up.
    running = Path(tempfile.mkdtemp(prefix="slipway-docker-", dir="/tmp"))
    socket, log = running / "docker.sock", HOME / "dockerd.log"
    command = ["dockerd", "--data-root", str(HOME / "data"), "--exec-root", str(running / "exec")]
    command += ["--pidfile", str(running / "dockerd.pid"), "--host", f"unix://{socket}", "--group", "0"]
    command += ["--bip", "172.31.250.1/24", "--default-address-pool", "base=172.31.240.0/21,size=26"]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    docker = Docker(socket, compose, variables)
    try:
        _await(docker, process, log)
        yield docker
    finally:
        _stop(docker, process)
        _clear(running)


def _clear(folder: Path) -> None:
    """Docker's containerd ends a little after it, and writes until then; Docker leaves a mount behind."""
    for _ in range(20):
        subprocess.run(["umount", "--quiet", str(folder / "exec/netns/default")], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.25)


def _answers(docker: Docker) -> bool:
    try:
        docker("version", timeout=30)
    except (AssertionError, subprocess.TimeoutExpired):
        return False
    return True


def _refuse_to_share(docker: Docker) -> None:
    """The test deletes all data of the stack at its end; somebody's own must not be there."""
    if any(name.startswith("slipway_") for name in docker("volume", "ls", "--quiet").split()):
        raise DockerError("this machine's Docker has a Slipway stack with data; `make down-volumes` deletes it")


def _await(docker: Docker, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        if _answers(docker):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").strip().splitlines() or ["no reason given"]
            raise DockerError(f"dockerd does not run here: {lines[-1][:300]}")
        time.sleep(0.2)


def _stop(docker: Docker, process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        left = docker("ps", "--all", "--quiet", check=False).split()
        if left:
            docker("rm", "--force", "--volumes", *left, check=False)
        docker("volume", "prune", "--force", check=False)
        docker("network", "prune", "--force", check=False)
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
