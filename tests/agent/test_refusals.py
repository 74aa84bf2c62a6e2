"""What the slot agent refuses: those without the token, what is not Slipway's, bentos that are not what was built."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agent.conftest import BASE, TOKEN, Agent, image_of, new_agent
from contracts.engine_twin import TwinEngine
from slipway.agent.app import create_app
from slipway.core.containers import LABELS, Container
from slipway.errors import StackError

EVERY_VERB = [
    ("GET", "/slots"),
    ("GET", "/images"),
    ("POST", "/slots/start"),
    ("POST", "/slots/drain"),
    ("POST", "/slots/stop"),
    ("POST", "/images/build"),
    ("POST", "/images/trim"),
]
DIGEST = "0" * 64


@pytest.mark.parametrize(("method", "path"), [*EVERY_VERB, ("GET", "/nothing")])
@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", TOKEN, f"Bearer {TOKEN}x", f"bearer {TOKEN[:-1]}", "Basic YQ=="]
)
def test_nobody_without_the_token_gets_further(agent: Agent, method: str, path: str, given: str) -> None:
    agent.http.headers.pop("authorization")
    answer = agent.http.request(method, path, content=b"{", headers={"authorization": given} if given else {})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert TOKEN not in answer.text
    assert agent.engine.calls == []


@pytest.mark.parametrize("token", ["", "short"])
def test_it_does_not_start_without_a_token(agent: Agent, token: str) -> None:
    with pytest.raises(StackError, match="token"):
        create_app(agent.engine, agent.slots, agent.images, token)


def test_its_health_needs_no_token_and_says_nothing_else(agent: Agent) -> None:
    agent.http.headers.pop("authorization")
    assert agent.http.get("/health").json() == {"status": "ok"}
    agent.engine.down = True
    assert agent.http.get("/health").status_code == 503


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/containers/json", "/slots/../images"])
def test_it_has_no_page_and_no_other_verb(agent: Agent, path: str) -> None:
    answer = agent.http.get(path)
    assert answer.status_code in (404, 405) or path.endswith("images")
    assert "traceback" not in answer.text.lower()


FOREIGN = {
    "another registry": {"model": "registry.example/slipway-bento/iris"},
    "another image": {"model": "iris:latest"},
    "a path": {"model": "../iris"},
    "an absolute path": {"model": "/etc"},
    "an empty model": {"model": ""},
    "upper case": {"model": "Iris"},
    "a line break": {"model": "iris\n"},
    "a name too long for DNS": {"model": "a" * 50},
    "a model that is no text": {"model": ["iris"]},
    "a tag that is no version": {"version": "latest"},
    "version nought": {"version": "0"},
    "a version with a path": {"version": "1/../../2"},
    "a version that is a number": {"version": 1},
    "no digest": {"digest": ""},
    "a digest in upper case": {"digest": "A" * 64},
    "a slot that is not one": {"slot": "red"},
    "a policy that is not one": {"when_full": "delete"},
    "a rollout that is a label of its own": {"rollout_id": 'x" evil="1'},
    "an image by name": {"image": "alpine:latest"},
    "a mount": {"mounts": [{"source": "/", "target": "/host"}]},
    "volumes": {"volumes": ["/:/host"]},
    "the host's network": {"network": "host"},
    "privileges": {"privileged": True},
    "a capability": {"cap_add": ["SYS_ADMIN"]},
    "a command": {"command": ["sh"]},
    "a variable": {"environment": {"LD_PRELOAD": "/tmp/x.so"}},
    "a user": {"user": "root"},
    "a published port": {"ports": {"3000": 80}},
    "a folder": {"path": "/etc"},
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_what_is_not_slipways_is_refused(agent: Agent, foreign: dict[str, Any]) -> None:
    wish = {**image_of(agent.bento()), "slot": "blue", **foreign}
    answer = agent.post("/slots/start", wish)
    assert answer.status_code == 422, answer.text
    (name,) = foreign
    assert [error["path"] for error in answer.json()["errors"]] in ([name], [f"{name}.0"])
    assert agent.engine.calls == []


@pytest.mark.parametrize("seconds", [-1, 601, "5", None, True])
def test_a_drain_takes_at_most_ten_minutes(agent: Agent, seconds: object) -> None:
    assert agent.post("/slots/stop", {"model": "iris", "slot": "blue", "seconds": seconds}).status_code == 422


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"iris"', b'{"model": NaN}', b"\xff"])
def test_what_is_no_json_object_is_refused(agent: Agent, body: bytes) -> None:
    answer = agent.http.post("/slots/start", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert agent.engine.calls == []


def test_a_large_request_is_refused_unread(agent: Agent) -> None:
    assert agent.post("/slots/start", {"model": "a" * 5000}).status_code == 413
    chunked = agent.http.post("/slots/start", content=iter([b"{", b"}"]))
    assert chunked.status_code == 413


# --- bentos ---------------------------------------------------------------------------------------------------------


def refused(agent: Agent, wish: dict[str, str]) -> str:
    """The reason why no image is built, and nothing remains of the attempt."""
    for path, more in (("/images/build", {}), ("/slots/start", {"slot": "blue"})):
        answer = agent.post(path, {**wish, **more})
        assert answer.status_code == 409, answer.text
        assert answer.json()["kind"] == "ArtefactError"
    assert agent.engine.calls == []
    assert agent.versions() == []
    return str(answer.json()["detail"])


def test_a_missing_bento_is_refused(agent: Agent) -> None:
    assert "missing" in refused(agent, {"model": "iris", "version": "1", "digest": DIGEST})


@pytest.mark.parametrize("change", ["changed", "added", "removed", "renamed"])
def test_a_bento_that_is_not_what_was_built_is_refused(agent: Agent, change: str) -> None:
    package = agent.bento()
    file = package.path / "src" / "model.txt"
    if change == "changed":
        file.write_text("iris 2")
    elif change == "added":
        (package.path / "src" / "sitecustomize.py").write_text("import os")
    elif change == "removed":
        file.unlink()
    else:
        file.rename(file.with_name("other.txt"))
    assert "differs" in refused(agent, image_of(package))


def test_the_time_of_building_is_no_difference(agent: Agent) -> None:
    package = agent.bento()
    description = package.path / "bento.yaml"
    description.write_text(description.read_text().replace("2026-11-20", "2026-11-21"))
    assert agent.start(package)["running"]


def test_a_link_out_of_the_bento_is_refused(agent: Agent, tmp_path: Path) -> None:
    package = agent.bento()
    secret = tmp_path / "secret"
    secret.write_text((package.path / "src" / "model.txt").read_text())
    (package.path / "src" / "model.txt").unlink()
    os.symlink(secret, package.path / "src" / "model.txt")
    assert "link" in refused(agent, image_of(package))


def test_a_bento_that_is_too_large_is_refused(tmp_path: Path) -> None:
    agent = new_agent(tmp_path / "bentos", TwinEngine(BASE), bento_max_mb=1)
    assert "SLIPWAY_BENTO_MAX_MB allows 1" in refused(agent, image_of(agent.bento(content="x" * 2**20)))


def test_a_large_file_comes_through_whole(agent: Agent) -> None:
    content = "a line of a model\n" * 60_000
    agent.start(agent.bento(content=content))
    (files,) = agent.engine.contexts
    assert files["bento/src/model.txt"].decode() == content
    assert sorted(files) == ["Dockerfile", "bento/bento.yaml", "bento/src/model.txt"]


@pytest.mark.parametrize("user", ["", "0", "root", "0:0", "root:slipway"])
def test_a_serving_image_that_runs_as_root_is_refused(tmp_path: Path, user: str) -> None:
    agent = new_agent(tmp_path / "bentos", TwinEngine(BASE, user))
    answer = agent.post("/slots/start", {**image_of(agent.bento()), "slot": "blue"})
    assert (answer.status_code, agent.engine.created) == (503, {})
    assert "root" in answer.json()["detail"]
    assert agent.versions() == []


def test_without_a_serving_image_it_says_how_to_get_one(tmp_path: Path) -> None:
    agent = new_agent(tmp_path / "bentos", TwinEngine("another:image"))
    answer = agent.post("/images/build", image_of(agent.bento()))
    assert answer.status_code == 503
    assert "docker compose build" in answer.json()["detail"]


# --- containers of others -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["start", "drain", "stop"])
@pytest.mark.parametrize("labels", [{}, {LABELS.MODEL: "iris", LABELS.SLOT: "green"}, {LABELS.SLOT: "blue"}])
def test_a_container_of_others_is_left_alone(agent: Agent, verb: str, labels: dict[str, str]) -> None:
    package = agent.bento()
    agent.post("/images/build", image_of(package))
    agent.engine.put(Container("slipway-iris-blue", "running", labels))
    before = list(agent.engine.calls)
    wish = (
        {**image_of(package), "slot": "blue"} if verb == "start" else {"model": "iris", "slot": "blue", "seconds": 1.0}
    )
    answer = agent.post(f"/slots/{verb}", wish)
    assert answer.status_code == 409, answer.text
    assert answer.json()["kind"] == "ConflictError"
    assert agent.engine.calls == before
    assert agent.listed() == {}


def test_an_image_of_others_is_neither_listed_nor_removed(agent: Agent) -> None:
    agent.engine.build(iter(_context(BASE, {LABELS.MODEL: "iris"})))
    built = agent.engine.images()[0]
    agent.engine.tag(built.id, "registry.example/iris", "1")
    assert agent.versions() == []
    assert agent.post("/images/trim", {"model": "iris"}).json() == {"removed": []}
    assert agent.engine.image("registry.example/iris:1") is not None


def _context(base: str, labels: dict[str, str]) -> list[bytes]:
    import io
    import tarfile

    named = " ".join(f'{name}="{value}"' for name, value in labels.items())
    content = f"FROM {base}\nLABEL {named}\n".encode()
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return [sink.getvalue()]
