"""The files of a bento and their digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Digest", "bento_files", "digest_of"]


class Digest:
    """SHA-256 over names and contents, added in the order of `bento_files`.

    The time of building does not count, so that building the same again gives the same digest.
    """

    def __init__(self) -> None:
        self._whole = hashlib.sha256()

    def add(self, name: str, content: bytes) -> None:
        """Count one file in."""
        if self.is_description(name):
            content = re.sub(rb"(?m)^creation_time:.*$", b"", content)
        self.add_hashed(name, hashlib.sha256(content).digest())

    def add_hashed(self, name: str, sha256: bytes) -> None:
        """Count one file in whose content's hash is known; it is no description."""
        encoded = name.encode()
        self._whole.update(len(encoded).to_bytes(8, "big") + encoded + sha256)

    @staticmethod
    def is_description(name: str) -> bool:
        """Whether a file says when the bento was built, which `add` leaves out."""
        return name.rpartition("/")[2] == "bento.yaml"

    def hexdigest(self) -> str:
        return self._whole.hexdigest()


def bento_files(folder: Path) -> Iterator[Path]:
    """Every file of a bento in a fixed order, but not the bytecode that a server leaves behind."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def digest_of(folder: Path) -> str:
    """The digest of a bento's files."""
    digest = Digest()
    for path in bento_files(folder):
        digest.add(path.relative_to(folder).as_posix(), path.read_bytes())
    return digest.hexdigest()
