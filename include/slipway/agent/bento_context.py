"""A bento as the context of an image build: verified while it is sent, so that what was verified is what is built."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from slipway.adapters.bento_files import Digest, bento_files
from slipway.errors import ArtefactError

__all__ = ["COMMAND", "bento_context"]

# As under Supervisor, but for the address; longer than Envoy keeps an idle connection, and with time to finish.
COMMAND = (
    *("python", "-m", "bentoml", "serve", "/bento", "--host", "0.0.0.0", "--port", "3000", "--api-workers", "1"),  # noqa: S104
    *("--timeout-keep-alive", "120", "--timeout-graceful-shutdown", "15"),
)
_PIECE_BYTES = 256 * 1024
_MB = 1024 * 1024


def bento_context(
    folder: Path, digest: str, serving_image: str, labels: Mapping[str, str], max_mb: int
) -> Iterator[bytes]:
    """The build context of a bento in pieces of a tar archive, which is never whole in memory or on a disk.

    The archive ends only after the digest turned out right: Docker does not get the end of another bento's.

    Raises:
        ArtefactError: the bento is missing, too large or holds a link; while iterated, its files have another digest.
    """
    tag = f"{folder.parent.name}:{folder.name}"
    if not folder.is_dir():
        raise ArtefactError(f"bento {tag} is missing; release the version again")
    files = list(bento_files(folder))
    if any(path.is_symlink() for path in files):  # it would be followed out of the bento; those to folders are not
        raise ArtefactError(f"bento {tag} holds a link; release the version again")
    size_mb = sum(path.stat().st_size for path in files) / _MB
    if size_mb > max_mb:
        raise ArtefactError(f"bento {tag} has {size_mb:.0f} MB; SLIPWAY_BENTO_MAX_MB allows {max_mb}")
    dockerfile = _dockerfile(serving_image, labels).encode()
    return _pieces(folder, files, dockerfile, digest, tag)


def _dockerfile(serving_image: str, labels: Mapping[str, str]) -> str:
    """One layer on the serving base; the labels come before it, so that what a killed build leaves can be told."""
    named = " ".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
    return f"FROM {serving_image}\nLABEL {named}\nCOPY bento /bento\n"


def _pieces(folder: Path, files: Sequence[Path], dockerfile: bytes, digest: str, tag: str) -> Iterator[bytes]:
    yield _header("Dockerfile", len(dockerfile)) + dockerfile + _padding(len(dockerfile))
    found = Digest()
    for path in files:
        yield from _file(path, path.relative_to(folder).as_posix(), found)
    if found.hexdigest() != digest:
        raise ArtefactError(f"bento {tag} differs from what was built; release the version again")
    yield bytes(2 * tarfile.BLOCKSIZE)


def _file(path: Path, name: str, found: Digest) -> Iterator[bytes]:
    with path.open("rb") as file:
        left = size = os.fstat(file.fileno()).st_size
        yield _header(f"bento/{name}", size)
        hashed = hashlib.sha256()
        whole = bytearray()  # of a description alone, in which the time of building does not count
        while left and (piece := file.read(min(left, _PIECE_BYTES))):
            left -= len(piece)
            hashed.update(piece)
            if Digest.is_description(name):
                whole += piece
            yield piece
    if left:
        raise ArtefactError(f"{path.name} of a bento became shorter while it was read; release the version again")
    if Digest.is_description(name):
        found.add(name, bytes(whole))
    else:
        found.add_hashed(name, hashed.digest())
    yield _padding(size)


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size  # no time and no owner: the same bento is the same layer
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
