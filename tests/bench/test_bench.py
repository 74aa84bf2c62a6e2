"""The benchmark's own parts: the generator counts right, and the demands are computed from what was found."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.client import Load, quantile, summary
from bench.generator import parse_wrk
from bench.rows import bodies, flowers


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers: tuple[int, ...] = (200,)
    count = 0

    def do_POST(self) -> None:
        cls = type(self)
        self.rfile.read(int(self.headers["content-length"]))
        status = cls.answers[cls.count % len(cls.answers)]
        cls.count += 1
        body = b"x" * 70_000
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def http_server(*answers: int) -> Iterator[int]:
    handler = type("Handler", (_Handler,), {"answers": answers, "count": 0})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"


def test_closed_load_counts_every_answer_by_status() -> None:
    with http_server(200, 200, 429) as port:
        load = Load("127.0.0.1", port, [REQUEST], 2)
        load.run_closed(0.3)
        found = summary(load, 0.3, series=True)
        load.close()
    assert found["errors"] == 0
    assert sum(found["statuses"].values()) == found["requests"] > 3
    assert found["statuses"]["200"] == pytest.approx(2 * found["statuses"]["429"], abs=3)
    assert sum(second["answers"] for second in found["series"]) == found["requests"]


def test_paced_load_sends_at_its_rate() -> None:
    with http_server(200) as port:
        load = Load("127.0.0.1", port, [REQUEST], 4)
        load.run_paced(0.5, 40)
        load.close()
    assert (len(load.latencies) + load.unsent, load.errors) == (pytest.approx(20, abs=1), 0)


def test_a_closed_connection_is_an_error() -> None:
    with http_server(200) as port:
        load = Load("127.0.0.1", port, [b"GET / HTTP/0.9\r\nconnection: close\r\n\r\n"], 1)
        load._send(load._free.popleft(), 0.0)
        while not load.errors and not load.statuses:
            for fd, _ in load._epoll.poll(1):
                load._receive(fd)
        load.close()
    assert load.errors + sum(load.statuses.values()) == 1


def test_quantiles_are_of_the_nearest_rank() -> None:
    assert [quantile(range(1000), share) for share in (0.5, 0.99, 0.999, 1.0)] == [500, 990, 999, 999]


def test_wrk_output_is_read() -> None:
    found = parse_wrk("Running 1s\nBENCH 1000 2000000 250.000000 900.000000 1500.000000 2000.000000 3 1\n")
    assert (found["rps"], found["p50_ms"], found["p999_ms"], found["errors"]) == (500.0, 0.25, 1.5, 1)
    assert found["statuses"] == {"200": 997, "other": 3}
    with pytest.raises(ValueError, match="no result"):
        parse_wrk("unable to connect")


@pytest.mark.parametrize("protocol", ["flat", "mlflow", "v2"])
def test_every_protocol_writes_the_same_rows(protocol: str) -> None:
    [one] = bodies(protocol, 1, 1)
    [many] = bodies(protocol, 3, 1)
    assert json.loads(one) != json.loads(many)
    assert one.count("5.1") == 1
    assert all(f"{value}" in many for row in flowers(3) for value in row)


def figures(rps: float) -> dict[str, float]:
    return {"rps": rps, "p50_ms": 1.0, "p99_ms": 2.0, "p999_ms": 3.0, "pss_mb": 150.0, "ready_s": 3.0}


def test_demands_table_file_and_picture(tmp_path: Path) -> None:
    found = {
        "connections": 8,
        "serving": {"slipway": figures(1000), "uvicorn_bare": figures(2000), "fastapi_sklearn": figures(20)},
        "gateway": {"direct_1": figures(1), "envoy_1": figures(1), "direct_64": figures(10), "envoy_64": figures(5)},
    }
    by_name = {one.name: one for one in report.demands(found)}
    assert (by_name["rps / fastapi_sklearn"].value, by_name["rps / fastapi_sklearn"].met) == (50, False)
    assert by_name["rps / uvicorn_bare"].met
    assert not by_name["rps through Envoy / direct, same cores"].met
    assert "rps / mlserver" not in by_name
    assert "MISS rps / fastapi_sklearn" in report.table(found)
    report.write(found, tmp_path / "bench" / "latest.json")
    written = json.loads((tmp_path / "bench" / "latest.json").read_text())
    assert set(written["serving"]["slipway"]) >= {"rps", "p50_ms", "p99_ms", "p999_ms", "pss_mb", "ready_s"}
    assert written["demands"][0]["bound"] == 60
    report.draw(found, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
