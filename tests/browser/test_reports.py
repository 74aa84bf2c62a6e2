"""A report can do nothing with the session of whoever looks at it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from browser.conftest import Opens
from cockpit.server import SeededWiring

pytestmark = pytest.mark.browser

HOSTILE = """<!doctype html><title>report</title><ul id="done"></ul><script>
const say = (text) => { const li = document.createElement("li"); li.textContent = text; document.getElementById("done").append(li); };
const tries = {
  cookie: async () => document.cookie,
  parent: async () => parent === self ? (() => { throw new Error("no parent"); })() : parent.document.title,
  storage: async () => localStorage.getItem("theme"),
  read: async () => (await fetch("/slipway/api/whoami", { credentials: "include" })).status,
  act: async () => (await fetch("/slipway/api/retrain/iris", { method: "POST", credentials: "include", mode: "no-cors" })).type,
  away: async () => { const image = new Image(); await new Promise((good, bad) => { image.onload = good; image.onerror = bad; image.src = "/slipway/static/x/icon.svg"; }); },
};
(async () => {
  for (const [name, attempt] of Object.entries(tries)) { try { await attempt(); say(`${name}: done`); } catch { say(`${name}: refused`); } }
  if (parent !== self) try { parent.location.href = "about:blank"; say("leave: done"); } catch { say("leave: refused"); }
  say("end");
})();
</script>"""  # noqa: E501


@pytest.fixture
def hostile(slipway: SeededWiring) -> str:
    slipway.lake.write_report("iris", "drift-hostile", "drift.html", HOSTILE)
    slipway.asked.clear()
    return "drift-hostile/drift.html"


def refused(page_or_frame: Page, slipway: SeededWiring) -> None:
    done = page_or_frame.locator("#done")
    expect(done).to_contain_text("end")
    said = done.inner_text()
    assert "cookie: refused" in said
    assert "read: refused" in said
    assert "act: refused" in said
    assert "storage: refused" in said
    assert "away: refused" in said
    assert "parent: refused" in said
    assert slipway.asked == []


def test_in_its_frame(opened: Opens, slipway: SeededWiring, hostile: str) -> None:
    page = opened(f"/report/iris/{hostile}")
    frame = page.frame_locator("iframe")
    refused(frame, slipway)  # type: ignore[arg-type]
    assert page.url.endswith(hostile)
    expect(page.get_by_role("heading", name="drift.html")).to_be_visible()


def test_opened_by_itself(opened: Opens, slipway: SeededWiring, hostile: str) -> None:
    refused(opened(f"/report-content/iris/{hostile}"), slipway)
