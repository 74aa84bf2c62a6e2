"""Every page, light and dark, at three widths: nothing spills over, nothing fails, axe-core finds nothing serious."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext, Page

from browser.conftest import Opens
from cockpit.browser import findings, sign_in, watched

pytestmark = pytest.mark.browser

PAGES = {
    "fleet": "/fleet",
    "drifted model": "/model/iris",
    "model after a failed rollout": "/model/solar",
    "empty model": "/model/code_language",
    "running rollout": "/rollout/housing",
    "failed rollout": "/rollout/solar",
    "no rollout": "/rollout/code_language",
    "playground": "/playground/iris",
    "many fields": "/playground/housing",
    "ledger": "/ledger",
    "what was live": "/ledger?model=iris&at=2036-01-01T00:00:00Z",
    "no such request": "/ledger?request_id=nothing",
    "report": "/report/iris/drift-test/drift.html",
}
WIDTHS = (375, 1280, 2560)
# The report's own script is kept from some things, and a request of nobody is answered with a page that says so.
EXPECTED = {"report": ("Content Security Policy", "sandboxed")}


def spill(page: Page) -> list[str]:
    """What reaches beyond the right edge and is neither scrolled nor clipped by something around it."""
    return list(
        page.evaluate("""() => {
            const wide = document.documentElement.clientWidth, found = [];
            if (document.documentElement.scrollWidth > wide) found.push(`page: ${document.documentElement.scrollWidth}`);
            const scrolls = (one) => { for (; one; one = one.parentElement) if (/auto|scroll|hidden|clip/.test(getComputedStyle(one).overflowX)) return true; return false; };
            for (const one of document.querySelectorAll("body *")) {
                const box = one.getBoundingClientRect();
                if (box.width && box.right > wide + 1 && !scrolls(one) && !one.closest(".hidden, .skip, dialog:not([open])")) found.push(`${one.tagName} ${one.className}: ${box.right}`);
            }
            return found;
        }""")  # noqa: E501
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_and_is_accessible(context: BrowserContext, address: str, name: str, theme: str) -> None:
    sign_in(context, address, "operator")
    page = context.new_page()
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    wrong = watched(page)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"{address}{PAGES[name]}", wait_until="networkidle")
        assert page.locator("html").get_attribute("data-theme") == theme
        assert spill(page) == [], width
        if width < 2000:
            assert findings(page) == [], width
    allowed = EXPECTED.get(name, ())
    assert [one for one in wrong if not any(word in one for word in allowed)] == []


def test_the_question_before_an_action_is_accessible_too(opened: Opens) -> None:
    page = opened("/model/iris")
    page.get_by_role("button", name="Roll back…").first.click()
    assert page.get_by_role("dialog").is_visible()
    assert findings(page) == []


def test_a_missing_page_says_so_and_leads_back(opened: Opens) -> None:
    page = opened("/model/rose")
    assert "rose" in page.inner_text("body")
    assert findings(page) == []
    page.get_by_role("link").first.click()
    assert page.url.endswith("/fleet")


def test_a_viewer_sees_every_page_and_no_button_that_acts(opened: Opens) -> None:
    for path in PAGES.values():
        page = opened(path, "viewer")
        assert page.locator("main h1").is_visible()
        assert (
            page.locator("main [data-act], main form button[type=submit]:enabled:not(.asks *, #filters *)").count() == 0
        ), path
        page.close()
