"""One browser, one seeded cockpit and one whole stack for the session, each started when a test asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from cockpit.browser import PROGRAM, chromium, sign_in
from cockpit.server import SeededWiring, mounted, serving
from contracts.services import Cluster
from loop.conftest import Stack, running_stack
from slipway.settings import PROJECT_DIR
from slipway_control.access import limits

HOME = PROJECT_DIR / "var" / "test-browser"
Opens = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if PROGRAM is None:
        pytest.exit("no Chromium on this machine; on Debian: apt-get install chromium", 1)
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def slipway(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeededWiring]:
    """Fifty models, and a ledger of ten thousand rows."""
    postgres.execute("create database cockpit_browser template template_slipway")
    url, folder = postgres.url("cockpit_browser"), tmp_path_factory.mktemp("cockpit")
    made = SeededWiring(url, folder, models=46, ledger_rows=10_000)
    yield made
    made.world.database.close()


@pytest.fixture(scope="session")
def address(slipway: SeededWiring) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, serving(mounted(slipway)) as found:
        patch.setattr("slipway_control.app.login_url", lambda request: "/login")  # there is no Airflow behind it
        yield f"{found}/slipway"


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 900}, timezone_id="Europe/Berlin")
    yield made
    made.close()


@pytest.fixture
def opened(context: BrowserContext, address: str) -> Opens:
    """Opens a page of the seeded cockpit as somebody."""
    limits.forget()

    def opens(path: str, who: str = "operator") -> Page:
        sign_in(context, address, who)
        page = context.new_page()
        page.goto(f"{address}{path}")
        return page

    return opens


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A whole stack with one model whose releases wait for a person."""
    with running_stack(HOME, SLIPWAY_FLEET_DIR=str(Path(__file__).parent / "fleet")) as running:
        yield running
