"""Pages in use: they update by themselves, keep what a person is doing, and answer to the keyboard."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import BrowserContext, Page, Request, expect

from browser.conftest import Opens
from cockpit.browser import watched
from cockpit.server import SeededWiring
from slipway.core.routes import BackendStats, cluster_name
from slipway.ports import Decision

pytestmark = pytest.mark.browser


def looks(page: Page) -> list[Request]:
    """The page's own looks at the server from now on."""
    found: list[Request] = []
    page.on("request", lambda one: found.append(one) if one.headers.get("x-slipway-part") else None)
    return found


def with_stopped_clock(opened: Opens, path: str) -> Page:
    """A page whose time goes on only when a test says so."""
    page = opened("/playground/iris")  # the clock has to be in the browser before the page is
    page.clock.install()
    page.goto(page.url.replace("/playground/iris", path), wait_until="networkidle")
    page.clock.pause_at(datetime.now(UTC) + timedelta(hours=1))
    return page


@pytest.mark.parametrize("path", ["/fleet", "/model/iris", "/rollout/solar", "/ledger"])
def test_an_idle_page_asks_once_in_five_seconds(opened: Opens, path: str) -> None:
    page = with_stopped_clock(opened, path)
    asked = looks(page)
    with page.expect_response(lambda answer: "x-slipway-part" in answer.request.headers) as answered:
        page.clock.run_for(5_000)
    assert answered.value.status in (200, 304)
    answered.value.finished()
    for _ in range(12):
        page.clock.run_for(2_500)
    assert len(asked) <= 1 + 30 / 5
    expect(page.locator("#pulse-text")).to_have_text("live")


def test_a_page_nobody_looks_at_asks_nothing(opened: Opens) -> None:
    page = with_stopped_clock(opened, "/fleet")
    asked = looks(page)
    page.evaluate("""() => {
        Object.defineProperty(document, "hidden", { get: () => true, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }""")
    page.clock.run_for(60_000)
    assert asked == []
    expect(page.locator("#pulse-text")).to_have_text("paused")


def test_news_arrives_by_itself_and_leaves_what_a_person_types_alone(opened: Opens, slipway: SeededWiring) -> None:
    page = opened("/fleet")
    field = page.get_by_role("searchbox", name="Find a model")
    field.fill("demand_07")
    row = page.locator("#row-demand_07")
    expect(row).to_contain_text("Fine")
    expect(page.locator("#row-demand_08")).to_be_hidden()
    now = datetime.now(UTC)
    reasons = ("temperature: ks 0.310, threshold 0.142",)
    slipway.decision_log.record(
        Decision(f"drift:demand_07:{now.isoformat()}", "demand_07", "drift", "drift", reasons, {"confirmed": True}, now)
    )
    expect(row).to_contain_text("drift is confirmed", timeout=15_000)
    expect(field).to_be_focused()
    expect(field).to_have_value("demand_07")
    expect(page.locator("#row-demand_08")).to_be_hidden()


def test_a_running_rollout_is_followed(opened: Opens, slipway: SeededWiring) -> None:
    page = opened("/rollout/housing")
    wrong = watched(page)
    new = page.locator("[data-side=new]")
    expect(new).to_contain_text("412")
    slipway.world.gateway.stats[cluster_name("housing", "green")] = BackendStats(1612, 4, 1)
    expect(new).to_contain_text("1,512", timeout=15_000)
    expect(page.locator("#chart-requests canvas")).to_be_visible()
    assert wrong == []


def test_a_lost_session_and_a_lost_server_are_said(opened: Opens) -> None:
    page = opened("/fleet")
    page.route("**/fleet", lambda route: route.abort())
    expect(page.locator("#notice")).to_contain_text("does not answer", timeout=15_000)
    page.unroute("**/fleet")
    expect(page.locator("#notice")).to_be_hidden(timeout=30_000)
    page.context.clear_cookies()
    expect(page.locator("#notice")).to_contain_text("signed out", timeout=15_000)
    expect(page.get_by_role("link", name="Log in again")).to_be_visible()


def test_a_keyboard_is_enough(opened: Opens, slipway: SeededWiring) -> None:
    page = opened("/fleet")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_role("link", name="iris", exact=True).focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/model/iris")
    slipway.asked.clear()
    button = page.get_by_role("button", name="Retrain…")
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Train iris again?")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(button).to_be_focused()
    assert slipway.asked == []
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Start training").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("Training has started")
    assert slipway.asked == [("train", "iris", "manual", None, "operator")]


def test_an_action_that_is_refused_says_why_and_stays_open(opened: Opens) -> None:
    page = opened("/rollout/housing")
    page.get_by_role("button", name="Promote now…").click()
    page.route("**/api/promote/**", lambda route: route.fulfill(status=409, json={"detail": "nobody was asked"}))
    page.get_by_role("dialog").get_by_role("button", name="Promote").click()
    expect(page.locator("#ask-error")).to_have_text("nobody was asked")
    expect(page.get_by_role("dialog")).to_be_visible()


def test_the_playground_predicts_while_a_slider_moves_and_takes_the_truth(opened: Opens, slipway: SeededWiring) -> None:
    page = opened("/playground/iris")
    wrong = watched(page)
    slipway.asked.clear()
    slider = page.get_by_role("slider", name="petal_length slider")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    answer = page.locator("#answer")
    expect(answer).to_contain_text("versicolor")
    expect(answer).to_contain_text("v3")
    expect(answer.get_by_role("progressbar")).to_have_count(3)
    expect(page.locator("#history li")).not_to_have_count(0)
    page.locator("#label").select_option("virginica")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#feedback-said")).to_have_text("Kept: virginica.")
    assert {one[0] for one in slipway.asked} == {"predict", "feedback"}
    assert wrong == []


def test_text_models_get_a_text_box(opened: Opens, slipway: SeededWiring, monkeypatch: pytest.MonkeyPatch) -> None:
    live = {"model": "code_language", "version": "1", "at": datetime.now(UTC), "actor": "airflow", "kind": "release"}
    monkeypatch.setattr(slipway.cockpit, "went_live", lambda models: {"code_language": live})
    page = opened("/playground/code_language")
    page.get_by_role("textbox").first.fill("def f(x):\n    return x")
    expect(page.locator("#answer")).to_contain_text("versicolor")


def test_chips_hide_kinds_of_the_timeline(opened: Opens) -> None:
    page = opened("/model/solar")
    traffic = page.locator(".story [data-kind=traffic]").first
    expect(traffic).to_be_visible()
    page.get_by_role("button", name="traffic", exact=True).click()
    expect(traffic).to_be_hidden()


def test_what_was_live_is_asked_in_local_time(opened: Opens) -> None:
    page = opened("/ledger")
    page.locator("#at-model").select_option("iris")
    at = datetime.now(UTC) - timedelta(days=8)
    local = at.astimezone(ZoneInfo("Europe/Berlin"))
    page.locator("#at-local").fill(local.strftime("%Y-%m-%dT%H:%M:%S"))
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".found")).to_contain_text("v2")
    assert at.strftime("%Y-%m-%dT%H:%M") in page.url.replace("%3A", ":")


def test_the_apis_own_page_works_without_another_server(opened: Opens, context: BrowserContext) -> None:
    context.route("**/*", lambda route: route.continue_() if "127.0.0.1" in route.request.url else route.abort())
    page = opened("/fleet")
    wrong = watched(page)
    page.goto(page.url.replace("/fleet", "/api/docs"))
    expect(page.locator("#operations-act-retrain_api_retrain__model__post")).to_be_visible()
    assert wrong == []
