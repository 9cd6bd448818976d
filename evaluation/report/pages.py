"""A report as one HTML page that asks no other host for anything, and as Markdown with its plots beside it.

Every cell and caption is escaped here, and only here: names of runs, templates and models are strangers' text. The
page forbids itself scripts and foreign sources, and its plots are images, in which nothing can run.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from chorus.evaluation.report.tables import Table

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1250px; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem; text-align: left; vertical-align: top; }
th { border-bottom-width: 2px; white-space: nowrap; }
p.note, figcaption { color: var(--soft); font-size: .9em; max-width: 60rem; }
figure { margin: 1rem 0; } img { width: 100%; background: #fff; border-radius: 6px; }
"""
CAPTION = (
    "A line is the mean of a recipe's runs, a band reaches from the lowest to the highest; running means over 2 % of "
    "the steps. Of checkpoints a line is a run, and a band the 95 % interval over problems: a square is the last, a "
    "diamond the one that validation selected, a hollow circle the best on these very problems, which is no result."
)


def write(
    folder: Path, title: str, tables: Sequence[Table], plots: Mapping[str, tuple[str, str]], caption: str = CAPTION
) -> tuple[Path, Path]:
    """Write report.html and report.md. `plots`: file stem to (title, SVG). Returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    page, text = folder / "report.html", folder / "report.md"
    for stem, (_, svg) in plots.items():
        (folder / f"{stem}.svg").write_text(svg, encoding="utf-8")
    page.write_text(as_html(title, tables, list(plots.values()), caption), encoding="utf-8")
    names = {stem: name for stem, (name, _) in plots.items()}
    text.write_text(as_markdown(title, tables, names, caption), encoding="utf-8")
    return page, text


def as_html(title: str, tables: Sequence[Table], plots: Sequence[tuple[str, str]], caption: str = CAPTION) -> str:
    first, *rest = [_html_table(t) for t in tables] or [""]
    figures = [_html_figure(name, svg, caption) for name, svg in plots]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{html.escape(title)}</h1>",
            *(first, *figures, *rest),
            "</body></html>\n",
        ]
    )


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = "\n".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in table.rows)
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in table.notes)
    body = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>'
    return f"<h2>{html.escape(table.title)}</h2>\n{body}\n{notes}"


def _html_figure(name: str, svg: str, caption: str) -> str:
    data = base64.b64encode(svg.encode()).decode()
    image = f'<img alt="{html.escape(name)}" src="data:image/svg+xml;base64,{data}">'
    return f"<h2>{html.escape(name)}</h2>\n<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"


def as_markdown(title: str, tables: Sequence[Table], plots: Mapping[str, str], caption: str = CAPTION) -> str:
    first, *rest = [_markdown_table(t) for t in tables] or [""]
    figures = [f"## {_plain(name)}\n\n![{_plain(name)}]({stem}.svg)\n\n{caption}" for stem, name in plots.items()]
    return "\n\n".join([f"# {_plain(title)}", first, *figures, *rest]).rstrip() + "\n"


def _markdown_table(table: Table) -> str:
    lines = [f"| {' | '.join(map(_plain, row))} |" for row in (table.header, *table.rows)]
    lines.insert(1, f"|{' --- |' * len(table.header)}")
    return "\n\n".join([f"## {_plain(table.title)}", "\n".join(lines), *map(_plain, table.notes)])


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no further cell."""
    text = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|#!~])", r"\\\1", text)
