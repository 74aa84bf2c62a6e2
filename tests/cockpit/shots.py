"""Pictures of every page, light and dark, for the documentation: `make screenshots`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from cockpit.browser import chromium, sign_in
from cockpit.database import throw_away_database
from cockpit.server import SeededWiring, mounted, serving
from slipway.settings import PROJECT_DIR

PAGES = {
    "fleet": "/fleet",
    "model": "/model/iris",
    "rollout": "/rollout/housing",
    "playground": "/playground/iris",
    "ledger": "/ledger",
}
SIZES = {"": (1280, 900), "phone-": (375, 780)}


def _shrink(picture: Path) -> None:
    """256 colours are enough for a page, at a third of the size."""
    with Image.open(picture) as image:
        # An octree keeps the few pixels of a rare colour, which a median cut would give up: those of the warnings.
        small = image.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    small.save(picture, optimize=True)


def main(folder: Path) -> None:
    """Write them all."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, throw_away_database() as url:
        slipway = SeededWiring(url, Path(home), models=4)
        with serving(mounted(slipway)) as address, chromium() as browser:
            for theme in ("light", "dark"):
                for size, (width, height) in SIZES.items():
                    context = browser.new_context(
                        viewport={"width": width, "height": height}, color_scheme=theme, timezone_id="Europe/Berlin"
                    )
                    sign_in(context, address, "operator")
                    for name, path in PAGES.items():
                        page = context.new_page()
                        page.goto(f"{address}/slipway{path}")
                        if name == "playground":
                            page.locator("#s-petal_length").fill("4.4")
                            page.locator(".answer").wait_for()
                        if name == "rollout":
                            page.wait_for_timeout(2500)  # two looks make the first point of a rate
                        target = folder / f"{size}{name}-{theme}.png"
                        page.screenshot(path=target, full_page=not size and name != "ledger")
                        _shrink(target)
                        print(target.relative_to(PROJECT_DIR) if target.is_relative_to(PROJECT_DIR) else target)
                        page.close()
                    context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PROJECT_DIR / "docs" / "screenshots")
