"""The fast lane on real connections: it answers what ASGI would answer, and knows what is not for it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from bento_cases import ROW, ROW_2, inner_app, read_frames, segments, write_iris
from predictor.config import Config
from predictor.engine import Engine
from predictor.front import Front
from predictor.wire import LaneProtocol

ID = "0198c6b4-31b6-7be2-9f0a-6a1b2c3d4e5f"


class Site:
    """A bento's app under uvicorn in this process; `lane_answers` counts what never became ASGI."""

    def __init__(self, server: uvicorn.Server, engine: Engine, port: int) -> None:
        self.server, self.engine, self.port = server, engine, port
        self.lane_answers = 0

    async def send(self, *pieces: bytes, answers: int = 1) -> list[tuple[bytes, dict[bytes, bytes], bytes]]:
        """Send pieces over one connection, each on its own, and read that many answers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        found = [await asyncio.wait_for(read_answer(reader), 5) for _ in range(answers)]
        writer.close()
        return found


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, dict[bytes, bytes], bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
    headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
    return lines[0], headers, await reader.readexactly(int(headers.get(b"content-length", b"0")))


def request(
    body: Any, path: str = "/predict/iris", head: str = "", method: str = "POST", version: str = "1.1"
) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = f"{method} {path} HTTP/{version}\r\nhost: x\r\ncontent-length: {len(content)}\r\n"
    kind = "" if "content-type" in head else "content-type: application/json\r\n"
    return (lines + kind + head + "\r\n").encode() + content


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., None]:
    """Run a coroutine function against a served bento: `site(scenario, keep_alive_seconds=…, **config)`."""

    def run(scenario: Callable[[Site], Awaitable[None]], keep_alive_seconds: float = 5, **config: Any) -> None:
        values = {"slot": "blue", "spool_dir": tmp_path / "spool", **config}

        async def main() -> None:
            engine = Engine(Config(artefacts_dir=write_iris(tmp_path / "artefacts"), **values))
            front = Front(inner_app, engine)
            protocol = type("Protocol", (LaneProtocol,), {"lane": front.lane})
            options = uvicorn.Config(
                front, port=0, http=protocol, log_config=None, server_header=False, lifespan="on",
                timeout_keep_alive=keep_alive_seconds, timeout_graceful_shutdown=5,
            )  # fmt: skip
            server = uvicorn.Server(options)
            serving = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            found = Site(server, engine, server.servers[0].sockets[0].getsockname()[1])
            answer = front.lane.answer

            def counted(*arguments: Any) -> bytes:
                found.lane_answers += 1
                return answer(*arguments)

            front.lane.answer = counted  # type: ignore[method-assign]
            try:
                await scenario(found)
            finally:
                server.should_exit = True
                await serving

        asyncio.run(main())

    return run


SAME = {
    "a row": (request(ROW), b"200 OK"),
    "a row with an id": (request(ROW, head=f"x-request-id: {ID.upper()}\r\n"), b"200 OK"),
    "a batch": (request({"rows": [ROW, ROW_2]}), b"200 OK"),
    "MLflow's protocol": (request({"instances": [list(ROW.values())]}, "/invocations"), b"200 OK"),
    "a field that is wrong": (request({**ROW, "sepal_length": "x"}), b"422 Unprocessable"),
    "no JSON": (request(b"{"), b"400 Bad Request"),
    "an empty body": (request(b""), b"400 Bad Request"),
}


@pytest.mark.parametrize("name", SAME)
def test_the_lane_answers_what_asgi_answers(site: Callable[..., None], name: str) -> None:
    """A charset in the content type is what sends the second one the long way."""
    content, status = SAME[name]

    async def scenario(served: Site) -> None:
        [fast] = await served.send(content)
        assert served.lane_answers == 1
        [slow] = await served.send(content.replace(b"application/json", b"application/json;charset=utf-8"))
        assert served.lane_answers == 1
        assert fast[0].startswith(b"HTTP/1.1 " + status)
        assert fast[0] == slow[0]
        assert set(fast[1]) == set(slow[1])
        for key in (b"content-type", b"content-length", b"x-model-version", b"x-slot"):
            assert fast[1][key] == slow[1][key]
        assert without_id(fast[2]) == without_id(slow[2])
        assert fast[1][b"x-request-id"] in fast[2] or b"predictions" in fast[2]
        if ID.upper().encode() in content:
            assert fast[1][b"x-request-id"] == slow[1][b"x-request-id"] == ID.encode()

    site(scenario)


def without_id(body: bytes) -> bytes:
    return re.sub(rb'"request_id":"[0-9a-f-]{36}"', b"", body)


OTHERS = {
    "another method": (request(ROW, method="PUT"), b"405"),
    "a route of its own": (b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n", b"200"),
    "another model": (request(ROW, "/predict/house"), b"404"),
    "a query": (request(ROW, "/predict/iris?a=1"), b"200"),
    "another type": (request(ROW, head="content-type: text/plain\r\n"), b"415"),
    "a compressed body": (request(ROW, head="content-encoding: gzip\r\n"), b"415"),
    "HTTP/1.0": (request(ROW, version="1.0"), b"200"),
    "a connection that ends": (request(ROW, head="connection: close\r\n"), b"200"),
    "a large body": (request(json.dumps(ROW).encode() + b" " * 40_000), b"200"),
    "chunks": (
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        b"2\r\n{}\r\n0\r\n\r\n",
        b"422",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_unusual_goes_the_long_way(site: Callable[..., None], name: str) -> None:
    content, status = OTHERS[name]

    async def scenario(served: Site) -> None:
        [answer] = await served.send(content)
        assert answer[0].split()[1] == status
        assert served.lane_answers == 0

    site(scenario)


def test_a_client_that_waits_for_100_gets_it(site: Callable[..., None]) -> None:
    head, _, body = request(ROW, head="expect: 100-continue\r\n").partition(b"\r\n\r\n")

    async def scenario(served: Site) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(head + b"\r\n\r\n")
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).startswith(b"HTTP/1.1 100 Continue")
        writer.write(body)
        assert (await read_answer(reader))[0] == b"HTTP/1.1 200 OK"
        writer.close()

    site(scenario)


def test_a_request_in_single_bytes_is_answered(site: Callable[..., None]) -> None:
    content = request(ROW)

    async def scenario(served: Site) -> None:
        third = len(content) // 3
        [answer] = await served.send(content[:5], content[5:third], content[third:-3], content[-3:])
        assert (answer[0], served.lane_answers) == (b"HTTP/1.1 200 OK", 1)

    site(scenario)


def test_pipelined_requests_are_answered_in_their_order(site: Callable[..., None]) -> None:
    """Also when one of them takes the long way and the next could have been answered at once."""
    ids = [ID[:-1] + digit for digit in "1234"]
    slow = "content-type: application/json;charset=utf-8\r\n"
    pieces = [request(ROW, head=f"x-request-id: {one}\r\n" + (slow if one == ids[1] else "")) for one in ids]

    async def scenario(served: Site) -> None:
        answers = await served.send(b"".join(pieces), answers=4)
        assert [answer[1][b"x-request-id"].decode() for answer in answers] == ids
        assert served.lane_answers == 1
        await served.send(pieces[0])
        assert served.lane_answers == 2

    site(scenario)


def test_every_answer_of_the_lane_is_logged_and_counted(site: Callable[..., None], tmp_path: Path) -> None:
    async def scenario(served: Site) -> None:
        await served.send(request(ROW, head=f"x-request-id: {ID}\r\n"))
        await served.send(request({"rows": [ROW, ROW_2]}, head="x-slipway-shadow: 1\r\n"))
        await served.send(request({}))
        metrics = served.engine.metrics
        assert (metrics.requests, metrics.rows, metrics.shadow_requests) == (1, 1, 1)
        assert (metrics.logged_rows, dict(metrics.errors)) == (3, {"invalid": 1})
        assert served.lane_answers == 3

    site(scenario)
    [path] = segments(tmp_path / "spool", "seg")
    records = read_frames(path)[1:]
    assert [(record[3], len(record[4])) for record in records] == [(False, 1), (True, 2)]
    assert records[0][0].hex() == ID.replace("-", "")


def test_when_each_reply_waits_for_the_disk_there_is_no_lane(site: Callable[..., None]) -> None:
    async def scenario(served: Site) -> None:
        [answer] = await served.send(request(ROW))
        assert (answer[0], served.lane_answers) == (b"HTTP/1.1 200 OK", 0)

    site(scenario, fsync_interval_ms=0)


def test_an_idle_connection_is_closed_and_a_used_one_is_not(site: Callable[..., None]) -> None:
    async def scenario(served: Site) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while loop.time() < begun + 0.9:
            writer.write(request(ROW))
            assert (await read_answer(reader))[0] == b"HTTP/1.1 200 OK"
            await asyncio.sleep(0.1)
        last = loop.time()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert 0.3 < loop.time() - last < 2
        writer.close()

    site(scenario, keep_alive_seconds=0.5)


def test_a_request_that_has_begun_to_arrive_is_answered_when_the_server_stops(site: Callable[..., None]) -> None:
    content = request(ROW)

    async def scenario(served: Site) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(content[:-4])
        await asyncio.sleep(0.05)
        served.server.should_exit = True
        await asyncio.sleep(0.2)
        writer.write(content[-4:])
        assert (await read_answer(reader))[0] == b"HTTP/1.1 200 OK"
        assert await reader.read() == b""
        writer.close()

    site(scenario)


def test_a_request_that_crosses_the_stop_is_answered_and_its_connection_closed(site: Callable[..., None]) -> None:
    async def scenario(served: Site) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request(ROW))
        assert b"connection" not in (await read_answer(reader))[1]
        served.server.should_exit = True
        while served.server.servers[0].is_serving():
            await asyncio.sleep(0.01)
        writer.write(request(ROW))
        status, headers, _ = await read_answer(reader)
        assert (status, headers[b"connection"]) == (b"HTTP/1.1 200 OK", b"close")
        assert await reader.read() == b""
        writer.close()

    site(scenario)


def test_an_overlong_turn_refuses_what_comes_late_in_it(site: Callable[..., None]) -> None:
    """One connection with many pipelined requests is one turn."""

    async def scenario(served: Site) -> None:
        answers = await served.send(request(ROW) * 2000, answers=2000)
        statuses = [answer[0].split()[1] for answer in answers]
        assert statuses[0] == b"200"
        assert statuses[-1] == b"429"
        assert set(statuses) == {b"200", b"429"}
        refused = answers[-1]
        assert refused[1][b"retry-after"] == b"1"
        assert json.loads(refused[2])["code"] == "overload"
        assert served.engine.metrics.errors["overload"] == statuses.count(b"429")
        [later] = await served.send(request(ROW))
        assert later[0] == b"HTTP/1.1 200 OK"

    site(scenario, max_queue_ms=1)
