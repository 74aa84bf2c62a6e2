"""A bento as the context of an image build: read once, so that what was verified is what is built."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, cast

from slipway.adapters.bento_files import Digest, bento_files
from slipway.errors import ArtefactError

__all__ = ["COMMAND", "bento_context"]

# As under Supervisor, but for the address; longer than Envoy keeps an idle connection, and with time to finish.
COMMAND = (
    *("python", "-m", "bentoml", "serve", "/bento", "--host", "0.0.0.0", "--port", "3000", "--api-workers", "1"),  # noqa: S104
    *("--timeout-keep-alive", "120", "--timeout-graceful-shutdown", "15"),
)
_IN_MEMORY_BYTES = 16 * 1024 * 1024


def _dockerfile(serving_image: str, labels: Mapping[str, str]) -> str:
    """One layer on the serving base; the labels come before it, so that what a killed build leaves can be told."""
    named = " ".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
    return f"FROM {serving_image}\nLABEL {named}\nCOPY bento /bento\n"


def bento_context(folder: Path, digest: str, serving_image: str, labels: Mapping[str, str]) -> BinaryIO:
    """The build context of a bento: a tar archive, open at its start, that the caller closes.

    Raises:
        ArtefactError: the bento is missing, holds a link, or its files have another digest.
    """
    if not folder.is_dir():
        raise ArtefactError(f"bento {folder.parent.name}:{folder.name} is missing; release the version again")
    found = Digest()
    spooled = cast("BinaryIO", tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES))  # noqa: SIM115 - the caller closes it
    try:
        with tarfile.open(fileobj=spooled, mode="w") as archive:
            _add(archive, "Dockerfile", _dockerfile(serving_image, labels).encode())
            for path in bento_files(folder):
                if path.is_symlink():  # it would be followed out of the bento; those to folders are not followed
                    raise ArtefactError(f"bento {folder.parent.name}:{folder.name} holds a link; release it again")
                name, content = path.relative_to(folder).as_posix(), path.read_bytes()
                found.add(name, content)
                _add(archive, f"bento/{name}", content)
        if found.hexdigest() != digest:
            tag = f"{folder.parent.name}:{folder.name}"
            raise ArtefactError(f"bento {tag} differs from what was built; release the version again")
        spooled.seek(0)
    except BaseException:
        spooled.close()
        raise
    return spooled


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)  # no time and no owner: the same bento is the same layer
    archive.addfile(entry, io.BytesIO(content))
