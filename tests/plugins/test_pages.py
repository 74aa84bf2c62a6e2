"""The pages over a seeded fleet: they render, refuse who may not look, and say what is wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from cockpit.server import SeededWiring, mounted
from contracts.services import Cluster
from slipway_control.airflow_session import COOKIE

pytestmark = pytest.mark.services
PAGES = ("/fleet", "/model/iris", "/rollout/housing", "/playground/iris", "/ledger")


@pytest.fixture(scope="module")
def slipway(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeededWiring]:
    postgres.execute("create database cockpit_pages template template_slipway")
    made = SeededWiring(postgres.url("cockpit_pages"), tmp_path_factory.mktemp("cockpit"), models=3)
    yield made
    made.world.database.close()


@pytest.fixture
def client(slipway: SeededWiring) -> Iterator[TestClient]:
    app = mounted(slipway)
    with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as client:
        client.headers["accept"] = "text/html"
        yield client


def look(client: TestClient, path: str, who: str = "operator", **headers: str) -> tuple[int, str]:
    client.cookies.set(COOKIE, who)
    answer = client.get(f"/slipway{path}", headers=headers)
    return answer.status_code, answer.text


MORE = ("/model/solar", "/model/code_language", "/rollout/solar", "/rollout/code_language", "/playground/housing")


@pytest.mark.parametrize("page", [*PAGES, *MORE, "/playground/code_language", "/report/iris/drift-test/drift.html"])
def test_every_page_is_seen_and_only_operators_get_buttons(client: TestClient, page: str) -> None:
    for who in ("operator", "viewer"):
        status, text = look(client, page, who)
        assert status == 200, text[:2000]
        acting = page.startswith("/model/") or page in ("/rollout/housing", "/rollout/solar")
        assert ("data-act=" in text) == (who == "operator" and acting)


def test_a_look_at_an_unchanged_page_is_answered_without_the_page(client: TestClient) -> None:
    client.cookies.set(COOKIE, "operator")
    for page in PAGES:
        part = {"x-slipway-part": "1"}
        first = client.get(f"/slipway{page}", headers=part)
        assert first.text.lstrip().startswith("<main")
        again = client.get(f"/slipway{page}", headers=part | {"if-none-match": first.headers["etag"]})
        assert again.status_code == 304 or "rollout" in page, page  # a running rollout counts on
        whole = client.get(f"/slipway{page}", headers={"if-none-match": first.headers["etag"]})
        assert "<html" in whole.text


def test_what_cannot_be_found_is_said_on_a_page_with_a_way_back(client: TestClient) -> None:
    for page in ("/model/rose", "/rollout/rose", "/playground/rose", "/report/iris/none/drift.html", "/nothing"):
        status, text = look(client, page)
        assert status == 404, page
        assert "Back to the fleet" in text
    assert look(client, "/report-content/iris/..%2f..%2fsecrets/x.html")[0] in (404, 422)


def test_the_ledger_is_read_page_by_page_and_filtered(client: TestClient, slipway: SeededWiring) -> None:
    _, text = look(client, "/ledger?model=iris&events=live")
    assert text.count("went live") >= 3
    assert "Traffic:" not in text
    newest = slipway.ledger_rows(limit=1)[0]["seq"]
    _, older = look(client, f"/ledger?before={newest}")
    assert f'id="row-{newest}"' not in older
    assert f'id="row-{newest - 1}"' in older
    _, asked = look(client, "/ledger?model=iris&at=not-a-time")
    assert "is no ISO 8601 time" in asked


def test_reports_are_sent_into_a_sandbox(client: TestClient) -> None:
    client.cookies.set(COOKIE, "viewer")
    answer = client.get("/slipway/report-content/iris/drift-test/drift.html")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in policy
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
