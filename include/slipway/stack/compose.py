"""`slipway --stack compose …`: the same commands for the container stack, from the machine it runs on.

`up`, `down`, `status` and `logs` are compose's own, `backup` and `restore` are make's; every other command runs in the
keeper's container, which has the stack's addresses, secrets and volumes. Files that a command names are files of that
container.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from slipway.errors import StackError
from slipway.settings import compose_env_file

__all__ = ["command_for", "run"]

CONTROL = "keeper"
_READING = {"--list", "--check", "--help", "-h"}  # of a backup or a restore: nothing is changed


def command_for(arguments: Sequence[str], compose: Sequence[str], *, terminal: bool) -> list[str]:
    """What to run in the project's folder in the place of `slipway ARGUMENTS`."""
    match list(arguments):
        case ["up"]:
            return ["make", "compose-up"]
        case ["down"]:
            return ["make", "compose-down"]
        case ["backup" | "restore", *rest] if _READING & set(rest):
            return ["make", "compose-read-backups", f"ARGS={shlex.join(arguments)}"]
        case ["backup", *rest]:
            return ["make", "compose-backup", f"ARGS={shlex.join(rest)}"]
        case ["restore", *rest] if "--await" not in rest:
            names = [part for part in rest if part != "--no-start"]
            no_start = ["NO_START=1"] if "--no-start" in rest else []
            return ["make", "compose-restore", f"FROM={shlex.join(names)}", *no_start]
        case ["status"]:
            return [*compose, "ps"]
        case ["logs", *rest]:
            return [*compose, "logs", *("--tail" if part in ("-n", "--lines") else part for part in rest)]
        case _:
            return [*compose, "exec", *([] if terminal else ["-T"]), CONTROL, "slipway", *arguments]


def _compose(env_file: str | None) -> list[str]:
    chosen = ["--env-file", env_file] if env_file else []
    if shutil.which("docker"):
        asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if asked.returncode == 0:
            return ["docker", "compose", *chosen]
    if shutil.which("docker-compose"):
        return ["docker-compose", *chosen]
    raise StackError("neither `docker compose` nor docker-compose is installed; install Docker, or leave out --stack")


def run(arguments: Sequence[str], project_dir: Path) -> int:
    """Runs a command against the container stack; its exit code.

    Raises:
        StackError: no compose on this machine, or no compose file in the project's folder.
    """
    if not (project_dir / "docker-compose.yml").is_file():
        raise StackError(f"no docker-compose.yml in {project_dir}; run this from a checkout of Slipway")
    command = command_for(arguments, _compose(compose_env_file()), terminal=sys.stdin.isatty())
    return subprocess.run(command, cwd=project_dir, check=False).returncode
