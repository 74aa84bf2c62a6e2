"""An open-loop stream of predictions over raw sockets: cheap enough to run beside a whole stack on two cores."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

_CONNECTIONS = 32
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Reply:
    """One request: when it was sent and answered (Unix time), and by whom; status 0 is a broken connection."""

    sent: float
    done: float
    status: int
    version: str = ""
    slot: str = ""
    error: str = ""

    @property
    def seconds(self) -> float:
        return self.done - self.sent


@dataclass
class OpenLoad:
    """`with OpenLoad(port, "iris", row, rate=50) as load:` — the stream runs inside of the block."""

    port: int
    model: str
    row: dict[str, Any]
    rate: float = 50.0
    replies: list[Reply] = field(default_factory=list)

    def __post_init__(self) -> None:
        body = json.dumps(self.row).encode()
        head = f"POST /predict/{self.model} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
        self._request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> OpenLoad:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_TIMEOUT_SECONDS + 5)

    def between(self, start: float, end: float) -> list[Reply]:
        """Requests that were sent in this time."""
        return [reply for reply in self.replies if start <= reply.sent < end]

    def failures(self) -> list[Reply]:
        return [reply for reply in self.replies if reply.status != 200]

    async def _run(self) -> None:
        idle: asyncio.LifoQueue[Any] = asyncio.LifoQueue()
        for _ in range(_CONNECTIONS):
            idle.put_nowait(None)
        tasks: set[asyncio.Task[None]] = set()
        began, count = time.perf_counter(), 0
        while not self._stop.is_set():
            delay = began + count / self.rate - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            count += 1
            task = asyncio.create_task(self._one(idle))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        while not idle.empty():
            if connection := idle.get_nowait():
                connection[1].close()

    async def _one(self, idle: asyncio.LifoQueue[Any]) -> None:
        sent = time.time()
        connection = await idle.get()
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                if connection is None:
                    connection = await asyncio.open_connection("127.0.0.1", self.port)
                connection[1].write(self._request)
                status, headers = await _answer(connection[0])
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            self.replies.append(Reply(sent, time.time(), 0, error=f"{type(error).__name__}: {error}"))
            if connection is not None:
                connection[1].close()
            connection = None
        else:
            who = headers.get("x-model-version", ""), headers.get("x-slot", "")
            self.replies.append(Reply(sent, time.time(), status, *who))
        idle.put_nowait(connection)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers
