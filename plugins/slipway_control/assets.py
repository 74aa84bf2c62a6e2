"""Static files behind the same login as everything else."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from fastapi import HTTPException
from fastapi.responses import FileResponse

__all__ = ["GuardedFiles", "fingerprint"]


class GuardedFiles:
    """An endpoint that answers with the files directly in a folder and in its folders, found once at the start."""

    def __init__(self, folder: Path) -> None:
        self._files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}

    def __call__(self, path: str) -> FileResponse:
        found = self._files.get(path)
        if found is None:
            raise HTTPException(404, "there is no such file")
        # Pages put a fingerprint of all files before the name, so that a new version is seen at once, with modules that
        # modules load; what it says is not looked at.
        return FileResponse(found, headers={"cache-control": "private, max-age=86400"})


def fingerprint(folder: Path) -> str:
    """A short name for the content of all files of a folder."""
    digest = sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:10]
