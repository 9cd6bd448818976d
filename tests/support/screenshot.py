"""A picture of the playground with one of its examples graded; the command stands in docs/playground.md."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from browser import Browser

WIDTH, HEIGHT = 1440, 1000  # a laptop's window


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="address of a reward server")
    parser.add_argument("example", help="the label of an example")
    parser.add_argument("file", type=Path, help="PNG file to write")
    parser.add_argument("--dark", action="store_true")
    arguments = parser.parse_args()
    with Browser() as browser:
        page = browser.open(arguments.url, WIDTH, HEIGHT, arguments.dark)
        buttons = "[...document.querySelectorAll('#examples button')]"
        found = f"{buttons}.find(button => button.textContent === {json.dumps(arguments.example)})"
        page.until("document.querySelectorAll('#template option').length > 1")
        page.evaluate(f"{found}.click()")
        page.until("document.getElementById('announce').textContent")
        page.evaluate("document.fonts.ready.then(() => true)")
        arguments.file.write_bytes(page.screenshot())


if __name__ == "__main__":
    main()
