"""Debian's Chromium, driven by Playwright, and what every look at a page has to fulfil."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from slipway_control.airflow_session import COOKIE

__all__ = ["PROGRAM", "chromium", "findings", "sign_in", "watched"]

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser; as root it runs without its own sandbox, which root cannot have."""
    if PROGRAM is None:
        raise RuntimeError("no Chromium on this machine; on Debian: apt-get install chromium")
    flags = ["--disable-gpu", "--force-color-profile=srgb", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=PROGRAM, headless=True, args=flags)
        try:
            yield browser
        finally:
            browser.close()


def sign_in(context: BrowserContext, address: str, who: str) -> None:
    """Be somebody on the seeded cockpit."""
    host = urlsplit(address).hostname or ""
    context.add_cookies([{"name": COOKIE, "value": who, "domain": host, "path": "/", "sameSite": "Lax"}])


def watched(page: Page) -> list[str]:
    """Collects what goes wrong on a page from now on: console errors, uncaught exceptions, failed requests."""
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(f"console: {said.text}") if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(f"exception: {error}"))
    page.on("response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    return wrong


def findings(page: Page) -> list[str]:
    """What axe-core finds of serious or critical weight, in words."""
    from axe_playwright_python.sync_playwright import Axe

    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {'; '.join(node['html'][:160] for node in one['nodes'][:4])}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
