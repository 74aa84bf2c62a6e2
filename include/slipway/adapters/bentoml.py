"""Bentos: the serving code of `bentos/` and one version's artefacts, built by the serving environment's Python.

A bento is immutable once built. Its digest is kept beside the store, so that a bento that was damaged or belongs to
another run is noticed: `verify` refuses it, `build` builds it again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slipway.adapters.bento_files import digest_of
from slipway.errors import ArtefactError
from slipway.ports import ModelVersion, Package, Registry, Tracker

__all__ = ["BentoPackager", "bento_tag", "digest_of"]

_log = logging.getLogger(__name__)
_BUILD_TIMEOUT_SECONDS = 300
_SERVICE = "service:Predictor"
_LEFT_OUT = (".venv", "__pycache__", "*.pyc", ".*", "*.in", "*.md", "Dockerfile", "artefacts")
_ARTEFACTS = ("model.onnx", "model.skops", "types.json", "schema.json", "golden.json")
# Runs in the serving environment. The lock travels with the code; BentoML would ask a package index for one of its own.
_BUILD_SCRIPT = """
import json, sys
import bentoml
name, version, context, service = sys.argv[1:]
python = {"lock_packages": False}
labels = json.load(open(context + "/artefacts/identity.json"))
bento = bentoml.bentos.build(service, name=name, version=version, build_ctx=context, python=python,
    labels={key: str(value) for key, value in labels.items() if key in ("run_id", "dataset_sha256", "code_commit")})
print("built " + bento.path)
"""


class BentoPackager:
    """The `Packager` port.

    Args:
        bentos_dir: the serving code.
        bentoml_home: BentoML's store; nothing is written elsewhere.
    """

    def __init__(
        self, registry: Registry, tracker: Tracker, serving_python: Path, bentos_dir: Path, bentoml_home: Path
    ) -> None:
        self._registry, self._tracker = registry, tracker
        self._python, self._source, self._home = serving_python, bentos_dir, bentoml_home

    def build(self, model: str, version: str) -> Package:
        """The bento of a registered version; an intact one of the same run is used as it is.

        Raises:
            NotFoundError: no such version.
            ArtefactError: its files are incomplete, or the build fails.
        """
        registered = self._registry.version(model, version)
        with self._lock(model, version):
            known = self._intact(registered)
            if known is not None:
                _log.info("bento %s is built already", bento_tag(model, version))
                self._record(model, version).touch()  # asked for just now: housekeeping leaves it alone for a while
                return self._package(registered, known)
            shutil.rmtree(self._path(model, version), ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix="slipway-bento-") as folder:
                self._stage(registered, Path(folder))
                self._run_build(model, version, Path(folder))
            digest = digest_of(self._path(model, version))
            self._write_record(registered, digest)
            _log.info("bento %s built, digest %s", bento_tag(model, version), digest[:12])
            return self._package(registered, digest)

    def verify(self, package: Package) -> None:
        """Compare a bento's files with its digest.

        Raises:
            ArtefactError: it is missing or differs.
        """
        if not package.path.is_dir():
            raise ArtefactError(f"bento {package.bento_tag} is missing at {package.path}; release the version again")
        if digest_of(package.path) != package.digest:
            raise ArtefactError(f"bento {package.bento_tag} differs from what was built; release the version again")

    def _path(self, model: str, version: str) -> Path:
        return self._home / "bentos" / model / f"v{version}"

    def _record(self, model: str, version: str) -> Path:
        return self._home / "digests" / f"{model}-v{version}.json"

    def _intact(self, registered: ModelVersion) -> str | None:
        path = self._path(registered.model, registered.version)
        try:
            record = json.loads(self._record(registered.model, registered.version).read_text())
        except (OSError, ValueError):
            return None
        if record.get("run_id") != registered.run_id or not path.is_dir():
            return None
        digest = digest_of(path)
        if digest != record.get("digest"):
            _log.warning("bento %s is damaged and is built again", bento_tag(registered.model, registered.version))
            return None
        return digest

    def _write_record(self, registered: ModelVersion, digest: str) -> None:
        path = self._record(registered.model, registered.version)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps({"run_id": registered.run_id, "digest": digest}))
        aside.replace(path)

    def _stage(self, registered: ModelVersion, folder: Path) -> None:
        shutil.copytree(self._source, folder, ignore=shutil.ignore_patterns(*_LEFT_OUT), dirs_exist_ok=True)
        artefacts = folder / "artefacts"
        artefacts.mkdir()
        with tempfile.TemporaryDirectory(prefix="slipway-model-") as fetched:
            model = self._tracker.download(registered.run_id, "model", Path(fetched), without=("native",))
            for name in _ARTEFACTS:
                if (model / name).is_file():
                    shutil.copyfile(model / name, artefacts / name)
        needed = {"schema.json", "golden.json"} - {path.name for path in artefacts.iterdir()}
        if needed or not list(artefacts.glob("model.*")):
            raise ArtefactError(f"run {registered.run_id} lacks {', '.join(sorted(needed)) or 'a model'}; train again")
        (artefacts / "identity.json").write_text(json.dumps(_identity(registered, artefacts), indent=1))

    def _run_build(self, model: str, version: str, folder: Path) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        # BentoML wants to see `uv`, though it has nothing to do for it here; without one it would fetch some version.
        own_tools = Path(sys.executable).parent
        environment = {
            "PATH": f"{self._python.parent}:{own_tools}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._home),
            "BENTOML_HOME": str(self._home),
            "BENTOML_DO_NOT_TRACK": "True",
            "DO_NOT_TRACK": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        command = [str(self._python), "-c", _BUILD_SCRIPT, model, f"v{version}", str(folder), _SERVICE]
        try:
            subprocess.run(
                command,
                cwd=folder,
                env=environment,
                check=True,
                capture_output=True,
                text=True,
                timeout=_BUILD_TIMEOUT_SECONDS,
            )
        except subprocess.CalledProcessError as error:
            _log.error("building %s failed:\n%s", bento_tag(model, version), error.stderr)
            last = (error.stderr or "no output").strip().splitlines()[-1][:300]
            raise ArtefactError(f"building {bento_tag(model, version)} failed: {last}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ArtefactError(f"building {bento_tag(model, version)} failed: {error}; run `make`") from error

    def _package(self, registered: ModelVersion, digest: str) -> Package:
        return Package(
            model=registered.model,
            version=registered.version,
            bento_tag=bento_tag(registered.model, registered.version),
            path=self._path(registered.model, registered.version),
            digest=digest,
            dataset_sha256=registered.tags.get("slipway.snapshot"),
            code_commit=registered.tags.get("slipway.code_commit"),
            evidence=json.loads(registered.tags.get("slipway.gate", "{}")),
        )

    @contextmanager
    def _lock(self, model: str, version: str) -> Iterator[None]:
        path = self._record(model, version).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with path.open("w") as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                # Housekeeping deletes the file with its bento: whoever waited on the deleted one waits again.
                if path.exists() and path.stat().st_ino == os.fstat(held.fileno()).st_ino:
                    yield
                    return


def bento_tag(model: str, version: str) -> str:
    return f"{model}:v{version}"


def _identity(registered: ModelVersion, artefacts: Path) -> dict[str, Any]:
    return {
        "model": registered.model,
        "version": registered.version,
        "run_id": registered.run_id,
        "dataset_sha256": registered.tags.get("slipway.snapshot"),
        "code_commit": registered.tags.get("slipway.code_commit"),
        "bento_tag": bento_tag(registered.model, registered.version),
        "format": "onnx" if (artefacts / "model.onnx").is_file() else "skops",
        "created_at": registered.created_at.isoformat(),
    }
