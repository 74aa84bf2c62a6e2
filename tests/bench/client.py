"""A load generator in one thread and the standard library alone: raw sockets and epoll.

Closed loop: each connection sends its next request when the answer is there. Paced (`--rate`): requests fall due
at a constant rate whatever the server does, and a latency counts from the moment a request was due, so that a
stall is seen by all requests that it held up and not by one alone (coordinated omission).

Prints one JSON object: requests, seconds, rps, statuses, errors, latencies in milliseconds.
"""

from __future__ import annotations

import argparse
import gc
import json
import select
import socket
import sys
import time
from array import array
from collections import Counter, deque
from pathlib import Path
from typing import Any

__all__ = ["Load", "main", "quantile"]

_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_NAP_SECONDS = 2e-5


class Load:
    """Connections to one address, and what came back over them."""

    def __init__(self, host: str, port: int, requests: list[bytes], connections: int) -> None:
        self.statuses: Counter[int] = Counter()
        self.errors = 0
        self.finished_at = array("d")
        self.latencies = array("d")
        self.unsent = 0
        self._address = (host, port)
        self._requests = requests
        self._next = 0
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._due: dict[int, float] = {}
        self._partial: dict[int, bytes] = {}
        self._free: deque[int] = deque()
        for _ in range(connections):
            self._connect()

    def _connect(self) -> None:
        connection = socket.create_connection(self._address, timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets[connection.fileno()] = connection
        self._epoll.register(connection.fileno(), select.EPOLLIN)
        self._free.append(connection.fileno())

    def _lose(self, fd: int) -> None:
        """A connection that broke with a request on it is an error; another takes its place."""
        self.errors += 1
        self._epoll.unregister(fd)
        self._sockets.pop(fd).close()
        self._due.pop(fd, None)
        self._partial.pop(fd, None)
        self._connect()

    def _send(self, fd: int, due: float) -> None:
        data = self._requests[self._next]
        self._next = (self._next + 1) % len(self._requests)
        self._due[fd] = due
        try:
            sent = self._sockets[fd].send(data)
            if sent < len(data):
                self._sockets[fd].sendall(data[sent:])
        except OSError:
            self._lose(fd)

    def _receive(self, fd: int) -> bool:
        """Read; whether an answer is whole now."""
        try:
            data = self._sockets[fd].recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self._lose(fd)
            return False
        held = self._partial.pop(fd, None)
        if held is not None:
            data = held + data
        head = data.find(_END)
        if head < 0 or len(data) < head + 4 + _content_length(data, head):
            self._partial[fd] = data
            return False
        now = time.perf_counter()
        self.statuses[int(data[9:12])] += 1
        self.latencies.append(now - self._due.pop(fd))
        self.finished_at.append(now)
        return True

    def greet(self) -> None:
        """One request on every connection, not counted: a server may take a while to accept many of them."""
        while self._free:
            self._send(self._free.popleft(), time.perf_counter())
        waiting = len(self._due)
        while waiting:
            for fd, _ in self._epoll.poll(1.0):
                if self._receive(fd):
                    self._free.append(fd)
                    waiting -= 1
        self.statuses.clear()
        self.latencies, self.finished_at = array("d"), array("d")

    def run_closed(self, seconds: float) -> None:
        """Every connection is always waiting for an answer."""
        end = time.perf_counter() + seconds
        while self._free:
            self._send(self._free.popleft(), time.perf_counter())
        while time.perf_counter() < end:
            for fd, _ in self._epoll.poll(1.0):
                if self._receive(fd):
                    self._send(fd, time.perf_counter())
            while self._free:  # connections that took a lost one's place
                self._send(self._free.popleft(), time.perf_counter())
        self._drain()

    def run_paced(self, seconds: float, rate: float) -> None:
        """Requests at a constant rate. One that finds no free connection waits here, and its latency grows."""
        start = time.perf_counter()
        end, interval, sent = start + seconds, 1.0 / rate, 0
        while (now := time.perf_counter()) < end:
            while self._free and (due := start + sent * interval) <= now:
                self._send(self._free.popleft(), due)
                sent += 1
            answered = self._epoll.poll(0)
            if not answered:
                time.sleep(_NAP_SECONDS)  # epoll's own timeout counts in milliseconds; spinning would take a core
            for fd, _ in answered:
                if self._receive(fd):
                    self._free.append(fd)
        self.unsent = max(0, int(seconds * rate) - sent)
        self._drain()

    def _drain(self) -> None:
        until = time.perf_counter() + 10
        while self._due and time.perf_counter() < until:
            for fd, _ in self._epoll.poll(0.1):
                self._receive(fd)
        self.errors += len(self._due)

    def close(self) -> None:
        for connection in self._sockets.values():
            connection.close()
        self._epoll.close()


def _content_length(data: bytes, head: int) -> int:
    start = data.find(_LENGTH, 0, head)
    if start < 0:
        start = data[:head].lower().find(_LENGTH)
        if start < 0:
            raise ValueError("an answer without content-length; this client reads no chunks")
    start += len(_LENGTH)
    stop = data.find(b"\r\n", start)
    return int(data[start:stop])


def quantile(ordered: Any, share: float) -> float:
    """Nearest rank, of sorted values."""
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))]) if len(ordered) else float("nan")


def summary(load: Load, seconds: float, series: bool) -> dict[str, Any]:
    """What a run shows; with `series` also the answers, p50 and p99 of each second."""
    ordered = sorted(load.latencies)
    result: dict[str, Any] = {
        "requests": len(ordered),
        "seconds": seconds,
        "rps": len(ordered) / seconds,
        "statuses": {str(status): count for status, count in sorted(load.statuses.items())},
        "errors": load.errors,
        "unsent": load.unsent,
        **{name: quantile(ordered, q) * 1e3 for name, q in (("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999))},
        "max_ms": (ordered[-1] if ordered else float("nan")) * 1e3,
    }
    if series and load.finished_at:
        first = load.finished_at[0]
        by_second: dict[int, list[float]] = {}
        for at, latency in zip(load.finished_at, load.latencies, strict=True):
            by_second.setdefault(int(at - first), []).append(latency)
        result["series"] = [
            {"second": second, "answers": len(v), "p50_ms": quantile(v, 0.5) * 1e3, "p99_ms": quantile(v, 0.99) * 1e3}
            for second, v in ((second, sorted(values)) for second, values in sorted(by_second.items()))
        ]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--bodies", type=Path, required=True, help="a JSON list of request bodies, sent in turn")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--warmup", type=float, default=0.3)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--series", action="store_true")
    options = parser.parse_args()
    head = f"POST {options.path} HTTP/1.1\r\nhost: {options.host}:{options.port}\r\ncontent-type: application/json\r\n"
    requests = [
        f"{head}content-length: {len(body.encode())}\r\n\r\n{body}".encode()
        for body in json.loads(options.bodies.read_text())
    ]
    gc.disable()  # its pauses would be counted as the server's
    if options.warmup:
        warm = Load(options.host, options.port, requests, options.connections)
        warm.run_closed(options.warmup)
        warm.close()
    load = Load(options.host, options.port, requests, options.connections)
    load.greet()
    begun = time.perf_counter()
    if options.rate:
        load.run_paced(options.seconds, options.rate)
    else:
        load.run_closed(options.seconds)
    json.dump(summary(load, time.perf_counter() - begun, options.series), sys.stdout)


if __name__ == "__main__":
    main()
