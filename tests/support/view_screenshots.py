"""Pictures of the page over a run; the command stands in docs/view.md. Each is a PNG of 128 colours."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from browser import Browser, Page
from PIL import Image

WIDTH, HEIGHT = 1280, 900
PAGES = {
    "view-overview": ("?page=overview&by=by_template", "document.querySelectorAll('canvas').length > 5"),
    "view-rollouts": ("?page=rollouts&format=:0.999", "document.querySelectorAll('#answers tbody tr').length"),
    "view-evaluations": ("?page=evaluations", "document.querySelectorAll('main tbody tr').length"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="address of a viewer of one finished run")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--dark", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    with Browser() as browser:
        page = browser.open(asked.url, WIDTH, HEIGHT, asked.dark)
        for name, (address, ready) in PAGES.items():
            page.go(f"{asked.url.rstrip('/')}/{address}")
            page.until(ready)
            shoot(page, asked.folder / f"{name}.png")
        page.go(f"{asked.url.rstrip('/')}/?page=rollouts&staleness=2:")
        page.until("document.querySelector('#answers tbody a')")
        page.evaluate("document.querySelector('#answers tbody a').click()")
        page.until("document.querySelectorAll('.samples article').length")
        shoot(page, asked.folder / "view-group.png")


def shoot(page: Page, file: Path) -> None:
    page.evaluate("document.fonts.ready.then(() => new Promise(done => setTimeout(done, 500)))")
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
