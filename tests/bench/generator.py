"""Closed-loop load by wrk where it is installed, else by `client.py`; paced load always by `client.py`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Generator", "parse_wrk"]

_CLIENT = Path(__file__).with_name("client.py")
# The bodies are turned into whole requests once; what is left in the loop is a table look-up.
_SCRIPT = """
local requests, turn = {}, 0
init = function(args)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  for index, name in ipairs(args) do
    local file = io.open(name, "rb")
    requests[index] = wrk.format(nil, nil, nil, file:read("*a"))
    file:close()
  end
end
request = function()
  turn = turn % #requests + 1
  return requests[turn]
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("BENCH %d %d %f %f %f %f %d %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), latency:percentile(99.9), latency.max, e.status,
    e.connect + e.read + e.write + e.timeout))
end
"""


def parse_wrk(output: str) -> dict[str, Any]:
    """The line that the script prints: counts, and microseconds.

    Raises:
        ValueError: there is none.
    """
    found = re.search(r"^BENCH (.*)$", output, re.MULTILINE)
    if found is None:
        raise ValueError(f"wrk printed no result: {output[-500:]}")
    count, duration, p50, p99, p999, largest, refused, errors = map(float, found[1].split())
    return {
        "requests": int(count),
        "seconds": duration / 1e6,
        "rps": count / (duration / 1e6),
        "statuses": {"200": int(count - refused), **({"other": int(refused)} if refused else {})},
        "errors": int(errors),
        "p50_ms": p50 / 1e3,
        "p99_ms": p99 / 1e3,
        "p999_ms": p999 / 1e3,
        "max_ms": largest / 1e3,
    }


@dataclass(frozen=True)
class Generator:
    """Sends `bodies` in turn to one path of a server on this machine; runs on the cores in `cpus`."""

    cpus: frozenset[int]

    @property
    def name(self) -> str:
        return "wrk" if shutil.which("wrk") else "client.py"

    def closed(
        self,
        port: int,
        path: str,
        bodies: Sequence[str],
        *,
        connections: int,
        seconds: float,
        cpus: frozenset[int] | None = None,
    ) -> dict[str, Any]:
        """Every connection is always waiting for an answer, after a short warm-up."""
        if self.name != "wrk":
            return self._client(
                port, path, bodies, ["--connections", str(connections), "--seconds", str(seconds)], cpus
            )
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "post.lua"
            script.write_text(_SCRIPT)
            files = []
            for index, body in enumerate(bodies):
                files.append(Path(folder) / str(index))
                files[-1].write_text(body)
            url = f"http://127.0.0.1:{port}{path}"

            def command(duration: float) -> list[str]:
                options = ["-t1", f"-c{connections}", f"-d{max(1, round(duration))}s", "--timeout", "20s"]
                return ["wrk", *options, "-s", str(script), url, "--", *map(str, files)]

            return parse_wrk(self._run(command(seconds), seconds, cpus))

    def paced(
        self, port: int, path: str, bodies: Sequence[str], *, connections: int, seconds: float, rate: float
    ) -> dict[str, Any]:
        """Requests fall due at a constant rate; latencies count from then."""
        options = ["--connections", str(connections), "--seconds", str(seconds), "--rate", str(rate), "--series"]
        return self._client(port, path, bodies, [*options, "--warmup", "0.3"])

    def _client(
        self, port: int, path: str, bodies: Sequence[str], options: Sequence[str], cpus: frozenset[int] | None = None
    ) -> dict[str, Any]:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(list(bodies), file)
            file.flush()
            command = [sys.executable, str(_CLIENT), "--port", str(port), "--path", path, "--bodies", file.name]
            seconds = float(options[options.index("--seconds") + 1])
            result: dict[str, Any] = json.loads(self._run([*command, *options], seconds, cpus))
        return result

    def _run(self, command: Sequence[str], seconds: float, cpus: frozenset[int] | None) -> str:
        cores = ",".join(str(cpu) for cpu in sorted(cpus or self.cpus))
        pinned = ["taskset", "-c", cores, *command] if shutil.which("taskset") else list(command)
        done = subprocess.run(pinned, capture_output=True, text=True, timeout=seconds * 3 + 60, check=False)
        if done.returncode:
            raise RuntimeError(f"the load generator failed: {(done.stderr or done.stdout)[-800:]}")
        return done.stdout
