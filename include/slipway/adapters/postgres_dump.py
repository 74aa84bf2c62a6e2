"""Databases as files: `pg_dump` and `pg_restore` of the server's own version."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from slipway.errors import StoreError

__all__ = ["PostgresDump"]


@dataclass(frozen=True)
class PostgresDump:
    """One server, as seen by its command-line tools.

    Attributes:
        binary: the path of a tool, given its name.
    """

    binary: Callable[[str], str]
    host: str
    port: int
    user: str
    password: str = field(repr=False)

    def dump(self, database: str, target: Path) -> None:
        """Write everything of a database, as it is at one moment, into a compressed archive; users go on meanwhile.

        Raises:
            StoreError: the server refused or is gone.
        """
        self._run("pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={target}", database)

    def restore(self, archive: Path, database: str) -> None:
        """Fill an empty database from an archive: all of it or nothing.

        Raises:
            StoreError: the archive is damaged, or the database is not empty.
        """
        options = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction")
        self._run("pg_restore", *options, f"--dbname={database}", str(archive))

    def _run(self, tool: str, *arguments: str) -> None:
        where = ("--host", self.host, "--port", str(self.port), "--username", self.user, "--no-password")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        done = subprocess.run(
            [self.binary(tool), *where, *arguments],
            env={**kept, "PGPASSWORD": self.password, "PGCONNECT_TIMEOUT": "10", "PGAPPNAME": "slipway"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no output"]
            raise StoreError(f"{tool} of {arguments[-1]} failed: {lines[0]}; check `slipway status postgres`")
