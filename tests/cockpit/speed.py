"""How long the cockpit's pages take with fifty models and a ledger of ten thousand rows: `make bench-cockpit`.

Server time is what a client on the same machine waits for the whole page, one request at a time; a first view is what
Chromium reports for a page it has never seen: first paint with content, and everything loaded. Without Chromium only
server times are measured. Exits 1 when a page is over its limit.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from cockpit.browser import PROGRAM, chromium, sign_in
from cockpit.database import throw_away_database
from cockpit.server import SeededWiring, mounted, serving
from slipway.settings import PROJECT_DIR
from slipway_control.airflow_session import COOKIE

PAGES = ("/fleet", "/model/iris", "/model/demand_01", "/rollout/housing", "/playground/iris", "/ledger")
MODELS, LEDGER_ROWS = 50, 10_000
LIMIT_P95_MS, LIMIT_VIEW_MS = 200, 1000
REPEATS, VIEWS = 200, 7
RESULTS = PROJECT_DIR / "var" / "bench" / "cockpit.json"
_TIMES = """() => {
    const page = performance.getEntriesByType("navigation")[0];
    const paint = performance.getEntriesByName("first-contentful-paint")[0];
    return { paint_ms: paint ? paint.startTime : null, loaded_ms: page.loadEventEnd };
}"""


def server_times(address: str) -> dict[str, dict[str, float]]:
    """Milliseconds by page: median, 95th percentile, worst, and kilobytes of the page."""
    found = {}
    with httpx.Client(
        cookies={COOKIE: "operator"}, headers={"accept": "text/html"}, timeout=60, trust_env=False
    ) as client:
        for path in PAGES:
            took = []
            for _ in range(REPEATS + 5):
                began = time.perf_counter()
                answer = client.get(f"{address}/slipway{path}")
                took.append((time.perf_counter() - began) * 1e3)
                if answer.status_code != 200:
                    raise SystemExit(f"{path} answered {answer.status_code}: {answer.text[:500]}")
            took = sorted(took[5:])
            found[path] = {
                "p50_ms": statistics.median(took),
                "p95_ms": took[int(len(took) * 0.95)],
                "max_ms": took[-1],
                "kilobytes": len(answer.content) / 1e3,
            }
    return found


def first_views(address: str) -> dict[str, dict[str, float]]:
    """Milliseconds by page, each time in a browser without a cache: medians."""
    found = {}
    with chromium() as browser:
        for path in PAGES:
            looks: list[dict[str, Any]] = []
            for _ in range(VIEWS):
                context = browser.new_context(viewport={"width": 1280, "height": 900})
                sign_in(context, address, "operator")
                page = context.new_page()
                page.goto(f"{address}/slipway{path}", wait_until="load")
                while (look := page.evaluate(_TIMES))["paint_ms"] is None:  # no waiting inside: the pages forbid eval
                    page.wait_for_timeout(20)
                looks.append(look)
                context.close()
            found[path] = {name: statistics.median(look[name] for look in looks) for name in looks[0]}
    return found


def main() -> int:
    """Measure, print, keep; 1 when a limit is passed."""
    with tempfile.TemporaryDirectory() as home, throw_away_database() as url:
        slipway = SeededWiring(url, Path(home), models=MODELS - 4, ledger_rows=LEDGER_ROWS)
        rows = slipway.ledger_summary()["rows"]
        with serving(mounted(slipway)) as address:
            found = server_times(address)
            if PROGRAM:
                for path, view in first_views(address).items():
                    found[path] |= view
    print(f"{MODELS} models, {rows:,} ledger rows")
    print(f"{'page':<20}{'p50':>8}{'p95':>8}{'worst':>8}{'kB':>8}{'paint':>8}{'loaded':>8}   (ms)")
    for path, one in found.items():
        names = ("p50_ms", "p95_ms", "max_ms", "kilobytes", "paint_ms", "loaded_ms")
        print(f"{path:<20}" + "".join(f"{one[name]:>8.0f}" if name in one else f"{'–':>8}" for name in names))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1))
    slow = [
        path for path, one in found.items() if one["p95_ms"] > LIMIT_P95_MS or one.get("loaded_ms", 0) > LIMIT_VIEW_MS
    ]
    if slow:
        print(f"over {LIMIT_P95_MS} ms at p95 or {LIMIT_VIEW_MS} ms until loaded: {', '.join(slow)}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
