"""A Docker daemon of the tests' own, and a serving base made from this machine's Python: nothing is downloaded."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from compose.daemon import DockerError, own_daemon
from slipway.adapters.docker_engine import DockerEngine
from slipway.agent.slots import SPOOL_DIR

BASE, NETWORK, VOLUME = "slipway-serving:test", "bento_test_network", "bento_test_spool"
MODEL = "contract_suite"  # no model of a fleet, for the daemon may be the machine's own
_USER = 10001
_LEFT_OUT = re.compile(r"/(site-packages|test|tests|idlelib|tkinter|ensurepip|lib2to3|__pycache__|config-3[^/]*)$")

# Stands for `python -m bentoml serve …`. Version 9 does not end when it is asked to.
BENTOML = b"""
import os, signal, sys, time
assert sys.argv[1:3] == ["serve", "/bento"], sys.argv
signal.signal(signal.SIGTERM, signal.SIG_IGN if os.environ["SLIPWAY_VERSION"] == "9" else lambda *_: sys.exit(0))
while True:
    time.sleep(0.05)
"""


@dataclass
class RealDocker:
    """The daemon: as the agent sees it, and as it is."""

    engine: DockerEngine
    api: Any

    def run(self, name: str, code: str) -> str:
        """What Python code prints inside a container."""
        made = self.api.exec_create(name, ["python", "-c", code])
        return str(self.api.exec_start(made["Id"]).decode())

    def clear(self) -> None:
        """Remove every container and image of the tests' model."""
        mine = {"label": f"slipway.model={MODEL}"}
        for one in self.api.containers(all=True, filters=mine):
            self.api.remove_container(one["Id"], force=True)
        for one in self.api.images(filters=mine):
            self.api.remove_image(one["Id"], force=True)


@pytest.fixture(scope="session")
def docker_of_the_session() -> Iterator[RealDocker]:
    """The compose test's daemon (so not in one run with it), with the serving base and a network."""
    try:
        with own_daemon({}) as daemon:
            yield from _prepared(daemon.environment["DOCKER_HOST"])
    except DockerError as error:
        pytest.exit(f"no containers can run here: {error}", returncode=1)


@pytest.fixture
def real_docker(docker_of_the_session: RealDocker) -> Iterator[RealDocker]:
    """The daemon without anything of the tests' model."""
    yield docker_of_the_session
    docker_of_the_session.clear()


def _prepared(url: str) -> Iterator[RealDocker]:
    import docker

    api = docker.APIClient(url, version="auto", timeout=300)
    real = RealDocker(DockerEngine(url, str(SPOOL_DIR)), api)
    _leave_nothing(real)  # of a run that was killed
    api.create_network(NETWORK, internal=True)
    _make_base(api)
    yield real
    _leave_nothing(real)
    api.close()


def _leave_nothing(real: RealDocker) -> None:
    import docker

    real.clear()
    remove: Sequence[tuple[Callable[[str], Any], str]] = (
        (real.api.remove_network, NETWORK),
        (real.api.remove_volume, VOLUME),
        (real.api.remove_image, BASE),
    )
    for take_away, name in remove:
        with contextlib.suppress(docker.errors.NotFound):
            take_away(name)


def _make_base(api: Any) -> None:
    """Python's standard library, a stand-in for BentoML, an unprivileged user."""
    changes = [
        f"ENV PATH={_python().parent} LC_ALL=C.UTF-8 PYTHONPATH=/standin",
        f"USER {_USER}:{_USER}",
        "WORKDIR /bento",
        'CMD ["python", "--version"]',
    ]
    repository, _, tag = BASE.partition(":")
    with tempfile.NamedTemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            _fill(archive)
        file.flush()
        api.import_image_from_file(file.name, repository=repository, tag=tag, changes=changes)


def _python() -> Path:
    return Path(os.path.realpath(sys.executable))


def _fill(archive: tarfile.TarFile) -> None:
    library = Path(sys.base_prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    files = {path: path.read_bytes() for path in _libraries([_python(), *library.rglob("*.so*")], library)}
    files[_python().with_name("python")] = _python().read_bytes()
    files[Path("/standin/bentoml/__main__.py")] = BENTOML
    files[Path("/etc/passwd")] = f"root:x:0:0::/:/none\nslipway:x:{_USER}:{_USER}::/tmp:/none\n".encode()
    # Every folder, for Docker lets only root into those that it makes up.
    for folder in sorted({parent for path in (*files, library, Path(SPOOL_DIR)) for parent in path.parents}):
        if folder.parts[1:]:
            _add_folder(archive, folder, 0o755, 0)
    _add_folder(archive, Path("/tmp"), 0o1777, 0)
    _add_folder(archive, Path(SPOOL_DIR), 0o755, _USER)
    archive.add(library, str(library), filter=_readable)
    for path, content in files.items():
        entry = tarfile.TarInfo(str(path)[1:])
        entry.size, entry.mode = len(content), 0o755
        archive.addfile(entry, io.BytesIO(content))


def _add_folder(archive: tarfile.TarFile, path: Path, mode: int, owner: int) -> None:
    entry = tarfile.TarInfo(str(path)[1:])
    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, owner, owner
    archive.addfile(entry)


def _readable(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if _LEFT_OUT.search("/" + entry.name):
        return None
    entry.mode |= 0o444 | (0o111 if entry.isdir() else 0)
    entry.uid = entry.gid = 0
    return entry


def _libraries(binaries: list[Path], library: Path) -> set[Path]:
    """What the loader needs beside Python's own library, under the names it asks for."""
    names = [str(path) for path in binaries]
    listed = subprocess.run(["ldd", *names], capture_output=True, text=True, check=False).stdout
    found = {Path(path) for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listed, re.MULTILINE)}
    return {path for path in found if not path.is_relative_to(library)}
