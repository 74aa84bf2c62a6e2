"""People at work on a whole stack, by clicking in Airflow: one test is one story, in the order in which it happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page, expect

from cockpit.browser import findings
from cockpit.routes import actions, every_route
from loop.conftest import Stack, wait_until
from slipway_control.app import create_app

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROLLOUT_MS = 180_000
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def drifted(stack: Stack) -> datetime:
    """Version 1 of iris is live, and flowers have grown since; nobody has done anything about it. When it began."""
    began = datetime.now(UTC)
    with ThreadPoolExecutor(1) as pool:
        demo = pool.submit(stack.cli, "demo", "iris", timeout=500)
        asked = lambda: (stack.models()["iris"]["rollout"] or {}).get("awaits_approval")  # noqa: E731
        wait_until(asked, 400, "the first version to wait for a yes")
        stack.cli("approve", "iris")
        demo.result()
    shift = ["--shift", "petal_length=+1.5", "--shift", "petal_width=+0.8"]
    stack.cli("simulate", "iris", "--rows", "1000", "--rate", "250", *shift, "--labels", "--seed", "12")
    logged = stack.home / "lake" / "labels" / "model=iris"
    wait_until(lambda: any(logged.rglob("*.parquet")), 60, "labels in the lake")
    stack.cli("run", "iris_drift", "--conf", json.dumps({"start": began.isoformat()}))
    return began


@pytest.fixture
def person(browser: Browser, stack: Stack) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    context.set_default_timeout(30_000)
    yield context
    context.close()


def log_in(context: BrowserContext, stack: Stack, who: str) -> Page:
    """Through Airflow's own login, from a page of the cockpit."""
    settings = stack.settings()
    page = context.new_page()
    page.goto(f"{settings.airflow_uri}/slipway/fleet")
    page.get_by_label("Username").fill(who)
    page.get_by_label("Password").fill(settings.secret(f"airflow_{who}_password"))
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/slipway/fleet")
    return page


def complaints(page: Page) -> list[str]:
    """What our own pages have to complain about from now on; Airflow's pages around them are Airflow's."""
    found: list[str] = []
    page.on(
        "console",
        lambda said: (
            found.append(said.text) if said.type == "error" and "/slipway/" in said.location.get("url", "") else None
        ),
    )
    page.on("pageerror", lambda error: found.append(str(error)) if "/slipway/" in (error.stack or "") else None)
    return found


def answer(frame: FrameLocator | Page, button: str, yes: str, why: str = "") -> None:
    """Press a button and confirm what it asks."""
    frame.get_by_role("button", name=button).first.click()
    if why:
        frame.locator("#ask-reason").fill(why)
    frame.get_by_role("dialog").get_by_role("button", name=yes, exact=True).click()
    expect(frame.get_by_role("dialog")).to_be_hidden()


def test_an_operator_heals_a_drifted_model_and_takes_it_back(
    person: BrowserContext, stack: Stack, drifted: datetime
) -> None:
    page = log_in(person, stack, "operator")
    page.goto(stack.settings().airflow_uri)
    found = complaints(page)
    page.get_by_role("link", name="Fleet", exact=True).click()
    cockpit = page.frame_locator("iframe[title=Fleet]")

    # A drifted model is seen, and why it is said to have drifted.
    row = cockpit.locator("#row-iris")
    expect(row).to_contain_text("drift is confirmed")
    expect(row).to_contain_text("v1")
    row.get_by_role("link", name="iris", exact=True).click()
    expect(cockpit.get_by_role("heading", name="Drift by feature")).to_be_visible()
    expect(cockpit.locator("table.drift")).to_contain_text("petal_length drifted")
    expect(cockpit.locator(".story")).to_contain_text("Automatic retraining stopped")
    expect(cockpit.locator("#chart-quality")).to_be_visible()
    cockpit.get_by_role("link", name="drift report").first.click()
    report = cockpit.frame_locator("iframe.report-frame")
    expect(report.locator("body")).to_contain_text("petal_length")
    page.go_back()

    # A retrain is started; its version turns up as a canary and waits for a yes.
    answer(cockpit, "Retrain on traffic…", "Start training")
    expect(cockpit.locator(".asked")).to_contain_text("retrain by operator")
    cockpit.locator("a.tag", has_text="v2").click(timeout=ROLLOUT_MS)
    expect(cockpit.get_by_role("heading", name="rollout of v2")).to_be_visible()
    expect(cockpit.locator("[data-side=new] .weight")).to_have_text("25 %", timeout=ROLLOUT_MS)
    expect(cockpit.locator("[data-side=new] .weight")).to_have_text("50 %", timeout=ROLLOUT_MS)
    expect(cockpit.locator(".checks")).to_contain_text("error rate")
    expect(cockpit.locator(".band.ask")).to_contain_text("waits for a person", timeout=ROLLOUT_MS)
    answer(cockpit, "Approve…", "Approve", "petals look right")
    expect(cockpit.locator(".head .light")).to_have_text("live", timeout=ROLLOUT_MS)
    wait_until(lambda: stack.models()["iris"]["live_version"] == "2", 30, "version 2 to be live")

    # The new version answers in the playground, and its answer is found in the ledger.
    cockpit.get_by_role("link", name="Playground").click()
    cockpit.get_by_role("button", name="Predict").click()
    expect(cockpit.locator("#answer")).to_contain_text("by v2")
    cockpit.locator("#label").select_option("setosa")
    cockpit.get_by_role("button", name="Send").click()
    expect(cockpit.locator("#feedback-said")).to_have_text("Kept: setosa.")
    cockpit.locator("#answer a").click()
    expect(cockpit.locator(".found")).to_contain_text("iris v2 answered")

    # It is taken back, and the whole story is in the ledger.
    cockpit.get_by_role("link", name="Fleet", exact=True).click()
    cockpit.locator("#row-iris").get_by_role("link", name="iris", exact=True).click()
    answer(cockpit, "Roll back…", "Roll back", "petals were right before")
    expect(cockpit.locator(".facts .big").first).to_have_text("v1", timeout=ROLLOUT_MS)
    wait_until(lambda: stack.models()["iris"]["live_version"] == "1", 30, "version 1 to be live again")
    cockpit.get_by_role("navigation", name="iris").get_by_role("link", name="Ledger").click()
    rows = cockpit.locator("table.rows")
    story = ["v1 is live again", "Rollback to v1 started", "v2 went live", "approved", "Release of v2 started"]
    for words in [*story, "v1 went live", "petals look right", "petals were right before", "operator"]:
        expect(rows).to_contain_text(words)
    told = rows.inner_text()
    assert [told.index(words) for words in story] == sorted(told.index(words) for words in story)
    assert found == []


def test_a_canary_is_aborted_rejected_and_promoted_by_clicking(
    person: BrowserContext, stack: Stack, drifted: datetime
) -> None:
    settings = stack.settings()
    key = {"x-api-key": settings.secret("control_key")}

    def begin() -> None:
        answered = httpx.post(
            f"{settings.airflow_uri}/slipway/api/release/iris", headers=key, json={"version": "2"}, timeout=30
        )
        assert answered.status_code == 202, answered.text

    page = log_in(person, stack, "operator")
    page.goto(f"{settings.airflow_uri}/slipway/rollout/iris")
    for button, yes, end in (("Abort…", "Abort", "aborted"), ("Reject…", "Reject", "aborted")):
        begin()
        expect(page.get_by_role("heading", name="rollout of v2")).to_be_visible(timeout=ROLLOUT_MS)
        expect(page.get_by_role("button", name=button)).to_be_visible(timeout=ROLLOUT_MS)
        answer(page, button, yes, f"to see it {button}")
        expect(page.locator(".head .light")).to_have_text(end, timeout=ROLLOUT_MS)
        assert stack.models()["iris"]["live_version"] == "1"
        wait_until(lambda: stack.models()["iris"]["rollout"] is None, 60, "the rollout to have ended")
    begin()
    answer_button = page.get_by_role("button", name="Promote now…")
    expect(answer_button).to_be_visible(timeout=ROLLOUT_MS)
    answer(page, "Promote now…", "Promote")
    expect(page.locator(".head .light")).to_have_text("live", timeout=ROLLOUT_MS)
    wait_until(lambda: stack.models()["iris"]["live_version"] == "2", 60, "version 2 to be live")
    for done in ("abort", "reject", "promote", "release"):
        expect(page.locator(".asked")).to_contain_text(done)


def test_a_viewer_sees_everything_and_may_do_nothing(person: BrowserContext, stack: Stack, drifted: datetime) -> None:
    page = log_in(person, stack, "viewer")
    found = complaints(page)
    uri = stack.settings().airflow_uri
    before = len(stack.ledger())
    for path in ("fleet", "model/iris", "rollout/iris", "playground/iris", "ledger"):
        page.goto(f"{uri}/slipway/{path}")
        expect(page.locator("main h1")).to_be_visible()
        assert page.locator("[data-act]").count() == 0
        assert findings(page) == []
    assert found == []
    tokens = "document.documentElement.dataset.csrf || ''"
    for method, path in actions(create_app()):
        status = page.evaluate(
            f"""([method, path]) => fetch(path, {{ method, headers: {{ "content-type": "application/json",
                "x-csrf-token": {tokens} }}, body: "{{}}" }}).then((answer) => answer.status)""",
            [method, f"/slipway{path}"],
        )
        assert status == 403, (method, path)
    assert len(stack.ledger()) == before


def test_without_a_login_nothing_is_seen_on_any_route(stack: Stack) -> None:
    uri = f"{stack.settings().airflow_uri}/slipway"
    with httpx.Client(timeout=30) as client:
        for method, path in every_route(create_app()):
            for accept in ("text/html", "application/json"):
                answered = client.request(method, f"{uri}{path}", headers={"accept": accept})
                if answered.status_code == 303:
                    assert "/auth/login" in answered.headers["location"]
                else:
                    assert answered.status_code in (401, 403), (method, path, answered.status_code)
                assert "iris" not in answered.text
            cross = {"cookie": "_token=made-up", "origin": "https://elsewhere.example"}
            assert client.request(method, f"{uri}{path}", headers=cross).status_code in (303, 401, 403), path
