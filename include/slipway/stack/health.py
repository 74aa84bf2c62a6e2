"""The health check of Slipway's own containers: `slipway-health URL…`, `slipway-health connected:PORT`, `… self`.

Docker starts it every few seconds in every container, so it runs by its path on the bare interpreter and imports
nothing but the standard library. `URL#name` asks Airflow's health page whether the component of that name reports;
`connected:6379` whether a process of this container holds a connection to that port elsewhere, as a worker does to its
broker as long as it waits for tasks.
"""

from __future__ import annotations

import http.client
import json
import sys
import urllib.parse
from pathlib import Path

TIMEOUT_SECONDS = 8.0
ESTABLISHED = "01"
CONNECTIONS = Path("/proc/net/tcp")


def connected(port: int, table: Path = CONNECTIONS) -> bool:
    """Whether this network namespace has an open connection to that port; `table` is in the kernel's format."""
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    return any(row[3] == ESTABLISHED and int(row[2].rpartition(":")[2], 16) == port for row in rows)


def healthy(url: str) -> bool:
    """Whether a GET is answered with 200, and with the component `healthy` if one is named after the #."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "connected":
        return connected(int(parts.path))
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200 or not parts.fragment:
            return answer.status == 200
        return bool(json.loads(body)[parts.fragment]["status"] == "healthy")
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False
    finally:
        connection.close()


def main(urls: list[str]) -> int:
    """The exit code: 0 when all answer."""
    return 0 if urls == ["self"] or (urls and all(healthy(url) for url in urls)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
