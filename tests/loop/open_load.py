"""An open-loop stream of single-row predictions that remembers every answer.

The stream has a process of its own: in the process that drives a release, the two would wait for each other's turn of
the interpreter, and the latency that is measured would be the test's. Raw sockets keep it cheap enough to run beside a
whole stack on two cores.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import astuple, dataclass, field
from typing import Any, TextIO

_CONNECTIONS = 32
_TIMEOUT_SECONDS = 35.0  # longer than the gateway's, whose 504 is the answer to a request that hangs
_FLUSH_SECONDS = 0.02
# A connection that lay idle longer is not used again: the gateway closes it after minutes, and a request that is sent
# in the same moment is lost, which nobody could tell from a failure of the release.
_LONGEST_IDLE_SECONDS = 60.0
# What waits longer for its turn is not sent any more: after a minute on an overloaded machine it would never catch up.
_LONGEST_BACKLOG_SECONDS = 20.0


@dataclass(frozen=True)
class Reply:
    """One request: when it was sent and answered (Unix time), and by whom.

    Status 0 is a broken connection; `error` says what broke, or what an answer other than 200 gave as its reason.
    """

    sent: float
    done: float
    status: int
    version: str = ""
    slot: str = ""
    request_id: str = ""
    error: str = ""
    row: int = 0

    @property
    def seconds(self) -> float:
        return self.done - self.sent


@dataclass
class OpenLoad:
    """`with OpenLoad(port, "iris", row, rate=50) as load:` — the stream runs inside of the block.

    Args:
        row: what is sent each time, or several that are sent in turn; a reply's `row` says which it was.
    """

    port: int
    model: str
    row: dict[str, Any] | list[dict[str, Any]]
    rate: float = 50.0
    replies: list[Reply] = field(default_factory=list)

    def __enter__(self) -> OpenLoad:
        command = [sys.executable, __file__, str(self.port), self.model, json.dumps(self.row), str(self.rate)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # which tells it to stop, also when this process is killed
        self._reader.join(_TIMEOUT_SECONDS + 5)
        self._process.wait(5)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.replies.append(Reply(*json.loads(line)))

    def between(self, start: float, end: float) -> list[Reply]:
        """Requests that were sent in this time."""
        time.sleep(5 * _FLUSH_SECONDS)
        return [reply for reply in self.replies if start <= reply.sent < end]

    def failures(self) -> list[Reply]:
        return [reply for reply in self.replies if reply.status != 200]

    def versions(self) -> Counter[str]:
        return Counter(reply.version for reply in self.replies if reply.status == 200)

    def answered_ids(self) -> set[str]:
        return {reply.request_id for reply in self.replies if reply.status == 200}


@dataclass
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used: float = 0.0

    def stale(self) -> bool:
        return self.reader.at_eof() or time.monotonic() - self.used > _LONGEST_IDLE_SECONDS


class _Stream:
    """The other side: sends, and writes each reply as one line."""

    def __init__(self, port: int, model: str, rows: Any, rate: float, out: TextIO) -> None:
        bodies = [json.dumps(row).encode() for row in (rows if isinstance(rows, list) else [rows])]
        head = f"POST /predict/{model} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
        self._requests = [f"{head}content-length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
        self._port, self._rate, self._out = port, rate, out
        self._idle: asyncio.LifoQueue[_Connection | None] = asyncio.LifoQueue()

    async def run(self, stop: threading.Event) -> None:
        for _ in range(_CONNECTIONS):
            self._idle.put_nowait(None)
        flushing = asyncio.create_task(self._flush())
        tasks: set[asyncio.Task[None]] = set()
        began, count = time.perf_counter(), 0
        while not stop.is_set():
            delay = began + count / self._rate - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            if len(tasks) < self._rate * _LONGEST_BACKLOG_SECONDS:
                task = asyncio.create_task(self._one(count % len(self._requests)))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            count += 1
        await asyncio.gather(*tasks)
        flushing.cancel()
        self._out.flush()

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            self._out.flush()

    async def _one(self, row: int) -> None:
        sent = time.time()
        connection = await self._idle.get()
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                if connection is not None and connection.stale():
                    connection.writer.close()
                    connection = None
                if connection is None:
                    connection = _Connection(*await asyncio.open_connection("127.0.0.1", self._port))
                connection.writer.write(self._requests[row])
                status, headers, body = await _answer(connection.reader)
                connection.used = time.monotonic()
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            reply = Reply(sent, time.time(), 0, error=f"{type(error).__name__}: {error}", row=row)
            if connection is not None:
                connection.writer.close()
            connection = None
        else:
            who = (headers.get(f"x-{name}", "") for name in ("model-version", "slot", "request-id"))
            reply = Reply(sent, time.time(), status, *who, error="" if status == 200 else _detail(body), row=row)
        self._out.write(json.dumps(astuple(reply)) + "\n")
        self._idle.put_nowait(connection)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, body


def _detail(body: bytes) -> str:
    """What a problem says, or whatever else stands there."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, LookupError, TypeError):
        return body[:200].decode(errors="replace")


def _main() -> None:
    port, model, row, rate = sys.argv[1:]
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    asyncio.run(_Stream(int(port), model, json.loads(row), float(rate), sys.stdout).run(stop))


if __name__ == "__main__":
    _main()
