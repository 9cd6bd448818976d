"""The Grafana dashboard, made of its table of panels, deploy/grafana/panels.toml.

    python -m chorus.deploy.tools.dashboard      writes deploy/grafana/dashboards/chorus.json, which Grafana provisions

Change the table, never the JSON.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_FOLDER = Path(__file__).resolve().parents[1] / "grafana"
PANELS = _FOLDER / "panels.toml"
DASHBOARD = _FOLDER / "dashboards" / "chorus.json"
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}  # the uid that is provisioned
_WIDTH = 24  # of Grafana's grid
_SIZE = {"timeseries": (8, 8), "stat": (3, 4)}  # width, height


class Panel(BaseModel):
    """`queries`: legend -> PromQL. The rest stands at the head of the table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    help: str
    queries: dict[str, str] = Field(min_length=1)
    unit: str = "none"
    kind: Literal["timeseries", "stat"] = "timeseries"
    stacked: bool = False
    zero_is_good: bool = False


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    panel: list[Panel] = Field(min_length=1)


def rows() -> list[Row]:
    return [Row.model_validate(row) for row in tomllib.loads(PANELS.read_text(encoding="utf-8"))["row"]]


def queries() -> Iterator[tuple[str, str]]:
    """(where it stands, PromQL) of every query of the dashboard."""
    for row in rows():
        for panel in row.panel:
            for legend, expr in panel.queries.items():
                yield f"{row.title} / {panel.title} / {legend}", expr


def dashboard() -> dict[str, Any]:
    """What Grafana reads: panels on a grid 24 wide, row after row."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows():
        panels.append(_headline(row.title, y))
        x, y, height = 0, y + 1, max(_SIZE[panel.kind][1] for panel in row.panel)
        for panel in row.panel:
            width = _SIZE[panel.kind][0]
            if x + width > _WIDTH:
                x, y = 0, y + height
            panels.append({"gridPos": {"x": x, "y": y, "w": width, "h": height}, **_panel(panel)})
            x += width
        y += height
    return {
        "uid": "chorus",
        "title": "Chorus",
        "description": "One run, a row for each question. Made by deploy/tools/dashboard.py.",
        "tags": ["chorus"],
        "schemaVersion": 39,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, 1)],
    }


def _headline(title: str, y: int) -> dict[str, Any]:
    place = {"x": 0, "y": y, "w": _WIDTH, "h": 1}
    return {"type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(panel: Panel) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + k), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend}
        for k, (legend, expr) in enumerate(panel.queries.items())
    ]
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": DATASOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit, **_look(panel)}, "overrides": []},
        "options": _OPTIONS[panel.kind],
    }


def _look(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        steps = [{"color": "green" if panel.zero_is_good else "blue", "value": None}]
        steps += [{"color": "red", "value": 1}] if panel.zero_is_good else []
        return {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": steps}}
    stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
    custom = {"lineWidth": 1, "fillOpacity": 30 if panel.stacked else 0, "stacking": stacking}
    return {"color": {"mode": "palette-classic"}, "custom": custom}


_OPTIONS: dict[str, dict[str, Any]] = {
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
        "textMode": "value_and_name",
    },
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
}


def text() -> str:
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    DASHBOARD.write_text(text(), encoding="utf-8")
