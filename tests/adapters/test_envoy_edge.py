"""The gateway's options, each asked of a real Envoy: keys, rate limits, compression, headers, the access log."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from contracts.services import Backend as Server
from contracts.services import RealEnvoy, eventually, new_envoy
from slipway.adapters.access_log import rotate_access_log
from slipway.adapters.envoy import EnvoyGateway, publish_keys
from slipway.core.edge import Edge, RateLimit, parse_rate_limits
from slipway.core.keys import SCOPES, ApiKey, digest_of_key, main_key, new_key
from slipway.core.routes import Backend, Route
from slipway.errors import GatewayError

pytestmark = pytest.mark.services
NOW = datetime(2026, 11, 20, tzinfo=UTC)
Start = Callable[..., RealEnvoy]


@pytest.fixture
def slot() -> Iterator[Server]:
    made = Server("blue")
    yield made
    made.close()


@pytest.fixture
def start(tmp_path: Path, slot: Server) -> Iterator[Start]:
    """Starts an Envoy with some options; its models are iris and housing."""
    started: list[RealEnvoy] = []

    def begin(edge: Edge, keys: list[ApiKey] | None = None, **options: int) -> RealEnvoy:
        made = new_envoy(tmp_path, edge=edge, **options)
        if keys is not None:
            publish_keys(made.xds_dir, keys, needed=edge.need_key)
        gateway = EnvoyGateway(made.xds_dir, made.admin_uri)
        fleet = [Route(model, (Backend("blue", slot.port, 100),)) for model in ("iris", "housing")]
        gateway.publish(fleet)
        made.start()
        started.append(made)
        gateway.confirm(fleet)
        gateway.close()
        return made

    yield begin
    for one in started:
        one.kill()


def key(name: str, text: str, *scopes: str) -> ApiKey:
    return new_key(name, text, scopes, at=NOW, by="test")


def post(envoy: RealEnvoy, path: str = "/predict/iris", sent: str | None = None, **more: str) -> httpx.Response:
    headers = more | ({"x-api-key": sent} if sent else {})
    return httpx.post(envoy.uri + path, json={}, headers=headers)


def problem(answer: httpx.Response, status: int, word: str) -> None:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert word in answer.json()["detail"]
    assert answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "envoy" not in str(answer.headers).lower()


def test_keys_open_what_their_scopes_name(start: Start, slot: Server) -> None:
    keys = [key("shop", "k-shop", "predict"), key("labels", "k-labels", "feedback"), main_key("k-control")]
    envoy = start(Edge(need_key=True), keys)
    problem(post(envoy), 401, "needs a key in x-api-key")
    assert post(envoy).headers["www-authenticate"] == "ApiKey"
    problem(post(envoy, sent="k-shop "[:-2]), 403, "wrong")
    problem(post(envoy, sent="k-labels"), 403, "may not be used for predict")
    for _ in range(3):
        assert post(envoy, sent="k-shop").headers["x-slot"] == "blue"
    assert post(envoy, "/invocations/housing", "k-shop").status_code == 200
    problem(post(envoy, "/feedback/iris", "k-shop"), 403, "feedback")
    assert post(envoy, "/feedback/iris", "k-labels").status_code == 200
    assert post(envoy, sent="k-control").status_code == 200
    assert all("x-api-key" not in headers for _, _, headers in slot.requests), "a bento never sees a key"
    assert httpx.get(envoy.uri + "/health").status_code == 200
    for path in ("//predict/iris", "/x/../predict/iris", "/./predict//iris", "/predict/iris?a=/health/iris"):
        assert httpx.post(envoy.uri + path).status_code == 401, path
    for path in ("/Predict/iris", "/%70redict/iris", "/predict%2Firis"):
        assert httpx.post(envoy.uri + path).status_code in (401, 404), path


def test_a_key_comes_and_goes_without_a_restart(start: Start) -> None:
    envoy = start(Edge(need_key=True), [])
    assert post(envoy, sent="k-new").status_code == 403
    assert publish_keys(envoy.xds_dir, [key("new", "k-new", "predict")], needed=True)
    eventually(lambda: post(envoy, sent="k-new").status_code == 200)
    assert not publish_keys(envoy.xds_dir, [key("new", "k-new", "predict")], needed=True)
    publish_keys(envoy.xds_dir, [], needed=True)
    eventually(lambda: post(envoy, sent="k-new").status_code == 403)


def test_envoy_holds_digests_only_in_a_file_of_its_owner(start: Start) -> None:
    envoy = start(Edge(need_key=True), [key("shop", "k-secret-text", "predict")])
    assert post(envoy, sent="k-secret-text").status_code == 200
    file = envoy.xds_dir / "keys.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    everything = httpx.get(envoy.admin_uri + "/config_dump?include_eds").text
    everything += "".join(path.read_text(errors="replace") for path in envoy.xds_dir.iterdir() if path.is_file())
    assert digest_of_key("k-secret-text") in everything
    assert "k-secret-text" not in everything


def test_the_digest_in_lua_is_sha256(start: Start) -> None:
    draw = random.Random(7)
    texts = [
        "".join(chr(draw.randrange(33, 127)) for _ in range(length)) for length in (1, 3, 55, 56, 63, 64, 119, 256)
    ]
    keys = [ApiKey(f"k{n}", hashlib.sha256(text.encode()).hexdigest(), SCOPES) for n, text in enumerate(texts)]
    envoy = start(Edge(need_key=True), keys)
    assert [post(envoy, sent=text).status_code for text in texts] == [200] * len(texts)
    assert post(envoy, sent="x" * 257).status_code == 403


def test_a_refused_caller_with_a_large_body_reads_why(start: Start) -> None:
    envoy = start(Edge(need_key=True), [])
    for _ in range(5):
        assert httpx.post(envoy.uri + "/predict/iris", content=b"x" * 900_000).status_code == 401


def test_rates_are_limited_for_each_model_and_route(start: Start) -> None:
    envoy = start(Edge(limits=parse_rate_limits("predict=3/m, feedback=5/m, control=1/m")))
    with httpx.Client(base_url=envoy.uri) as client:
        answers = [client.post("/predict/iris", json={}) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        problem(answers[-1], 429, "try again in 20 seconds")
        assert answers[-1].headers["retry-after"] == "20"
        assert client.post("/predict/housing", json={}).status_code == 200
        assert client.post("/invocations/iris", json={}).status_code == 200
        assert [client.post("/feedback/iris", json={}).status_code for _ in range(6)][-2:] == [200, 429]
        client.get("/config")
        refused = client.get("/models/info")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
        assert client.get("/health").status_code == 200


def test_a_weight_change_does_not_fill_the_buckets(start: Start, slot: Server) -> None:
    envoy = start(Edge(limits=(RateLimit("predict", 2, 60),)))
    assert [post(envoy).status_code for _ in range(3)] == [200, 200, 429]
    gateway = EnvoyGateway(envoy.xds_dir, envoy.admin_uri)
    fleet = [Route("iris", (Backend("blue", slot.port, 50), Backend("green", slot.port, 50)))]
    gateway.publish(fleet)
    gateway.confirm(fleet)
    gateway.close()
    assert post(envoy).status_code == 429


def test_rates_are_limited_for_each_key(start: Start) -> None:
    keys = [key("a", "k-a", "predict"), key("b", "k-b", "predict")]
    envoy = start(Edge(key_limits=parse_rate_limits("predict=2/m")), keys)
    assert [post(envoy, f"/predict/{model}", "k-a").status_code for model in ("iris", "housing", "iris")] == [
        200,
        200,
        429,
    ]
    assert post(envoy, sent="k-b").status_code == 200
    assert [post(envoy).status_code for _ in range(4)] == [200] * 4, "no key is needed here, and none is limited"
    problem(post(envoy, sent="wrong"), 403, "wrong")


def test_large_answers_are_compressed_for_those_who_ask(start: Start, slot: Server) -> None:
    envoy = start(Edge(gzip_min_bytes=1000))
    slot.headers = {"content-type": "application/json"}

    def answer(size: int, accept: str = "gzip") -> httpx.Response:
        slot.body = json.dumps({"predictions": ["setosa"] * (size // 10)}).encode()
        with httpx.stream("POST", envoy.uri + "/predict/iris", headers={"accept-encoding": accept}) as got:
            got.extensions["raw"] = b"".join(got.iter_raw())
        return got

    large = answer(50_000)
    assert large.headers["content-encoding"] == "gzip"
    assert "accept-encoding" in large.headers["vary"].lower()
    assert gzip.decompress(large.extensions["raw"]) == slot.body
    assert len(large.extensions["raw"]) < 5_000
    assert "content-encoding" not in answer(500).headers
    assert "content-encoding" not in answer(50_000, "identity").headers
    for kind, encoding in (("text/event-stream", None), ("application/json", "chunked"), ("image/png", None)):
        slot.headers = {"content-type": kind} | ({"transfer-encoding": encoding} if encoding else {})
        assert "content-encoding" not in answer(50_000).headers, kind


def test_headers_that_browsers_heed(start: Start, tmp_path: Path) -> None:
    control = Server("control")
    envoy = start(Edge(), control_port=control.port)
    try:
        for path in ("/health", "/predict/iris", "/nowhere", "/docs", "/config"):
            headers = httpx.get(envoy.uri + path).headers
            assert headers["x-content-type-options"] == "nosniff", path
            assert "strict-transport-security" not in headers
        assert httpx.get(envoy.uri + "/docs").headers["content-security-policy"] == "frame-ancestors 'none'"
        assert httpx.get(envoy.uri + "/config").headers["cache-control"] == "no-store"
        envoy.kill()
        bare = start(Edge(security_headers=False))
        assert "x-content-type-options" not in httpx.get(bare.uri + "/health").headers
    finally:
        control.close()


def flushed(envoy: RealEnvoy) -> bool:
    """Envoy writes every ten seconds; opening the log again writes at once."""
    return httpx.post(envoy.admin_uri + "/reopen_logs").is_success


def test_the_access_log_tells_of_every_request_without_its_secrets(start: Start, slot: Server, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    envoy = start(Edge(need_key=True, access_log=log), [key("shop", "k-secret", "predict")])
    slot.headers = {"x-model-version": "7"}
    answer = httpx.post(
        envoy.uri + "/predict/iris?token=hidden", content=b"body-text", headers={"x-api-key": "k-secret"}
    )
    refused = post(envoy, "/predict/housing", "k-wrong")
    eventually(lambda: flushed(envoy) and "housing" in log.read_text())
    text = log.read_text()
    lines = {line["request_id"]: line for line in map(json.loads, text.splitlines())}
    line = lines[answer.headers["x-request-id"]]
    told = {name: line[name] for name in ("model", "version", "slot", "status", "path", "key", "method")}
    assert told == {
        "model": "iris",
        "version": "7",
        "slot": "blue",
        "status": 200,
        "path": "/predict/iris",
        "key": "shop",
        "method": "POST",
    }
    assert (line["bytes_in"], line["bytes_out"]) == (9, len(answer.content))
    assert line["duration_ms"] >= 0
    assert lines[refused.headers["x-request-id"]]["status"] == 403
    for secret in ("k-secret", "k-wrong", "hidden", "body-text"):
        assert secret not in text


def test_a_grown_access_log_is_turned_over(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    envoy = start(Edge(access_log=log))

    for round_ in ("one", "two", "three"):
        post(envoy, f"/predict/{round_}")
        eventually(lambda path=f"/predict/{round_}": flushed(envoy) and path in log.read_text(), what=round_)
        assert rotate_access_log(log, 100, 2, envoy.admin_uri)
        assert f"/predict/{round_}" in log.with_name("access.log.1").read_text()
    eventually(log.exists)
    assert not rotate_access_log(log, 100, 2, envoy.admin_uri)
    assert sorted(path.name for path in tmp_path.glob("access.log*")) == ["access.log", "access.log.1", "access.log.2"]
    assert "/predict/one" not in log.with_name("access.log.2").read_text()
    log.unlink()
    assert rotate_access_log(log, 100, 2, envoy.admin_uri), "a log that was lost is opened again"
    eventually(log.exists)
    envoy.kill()
    with pytest.raises(GatewayError, match="is it running"):
        log.write_text("x" * 101) and rotate_access_log(log, 100, 2, envoy.admin_uri)


def test_with_everything_off_the_chain_is_the_short_one(tmp_path: Path) -> None:
    config = json.loads((new_envoy(tmp_path).xds_dir / "bootstrap.yaml").read_text())
    (chain,) = config["static_resources"]["listeners"][0]["filter_chains"]
    assert "transport_socket" not in chain
    manager = chain["filters"][0]["typed_config"]
    names = [one["name"].rpartition(".")[2] for one in manager["http_filters"]]
    assert names == ["header_mutation", "lua", "health_check", "buffer", "router"]
    assert manager["access_log"] == []
