"""A steady, open-loop stream of single-row predictions that remembers every answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Answer:
    at: float
    status: int | None
    version: str | None
    request_id: str | None
    error: str | None = None


@dataclass
class SteadyLoad:
    """`with SteadyLoad(uri, "iris", row, rate=100) as load:` — the stream runs inside of the block."""

    gateway_uri: str
    model: str
    row: dict[str, Any]
    rate: float = 100.0
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> SteadyLoad:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        async with httpx.AsyncClient(base_url=self.gateway_uri, timeout=30.0, limits=limits) as client:
            began = time.perf_counter()
            sent = 0
            tasks: set[asyncio.Task[None]] = set()
            while not self._stop.is_set():
                delay = began + sent / self.rate - time.perf_counter()
                if delay > 0:
                    await asyncio.sleep(delay)
                sent += 1
                task = asyncio.create_task(self._send(client))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)

    async def _send(self, client: httpx.AsyncClient) -> None:
        try:
            reply = await client.post(f"/predict/{self.model}", json=self.row)
        except httpx.TransportError as error:
            self.answers.append(Answer(time.time(), None, None, None, f"{type(error).__name__}: {error}"))
            return
        headers = reply.headers
        self.answers.append(
            Answer(time.time(), reply.status_code, headers.get("x-model-version"), headers.get("x-request-id"))
        )

    def failures(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status != 200]

    def versions(self) -> Counter[str | None]:
        return Counter(answer.version for answer in self.answers if answer.status == 200)

    def answered_ids(self) -> set[str]:
        return {str(answer.request_id) for answer in self.answers if answer.status == 200}
