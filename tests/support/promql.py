"""What a PromQL expression names, and Debian's promtool to say whether it is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus"
RATE_INTERVAL = "$__rate_interval"  # Grafana's
_KEYWORDS = {"and", "or", "unless", "on", "ignoring", "by", "without", "group_left", "group_right", "bool", "offset"}
_MATCHERS = re.compile(r"\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_NAME = re.compile(r"(?<![\w:.$])[a-zA-Z_:][\w:]*\b(?!\s*\()")


def tool(name: str) -> str:
    """The path of `promtool` or `prometheus`; skips the test where there is none."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian's package prometheus has it)")
    return path


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [tool("promtool"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def metric_names(expr: str) -> set[str]:
    bare = re.sub(r"\[[^]]*\]", "", _GROUPING.sub("", _MATCHERS.sub("", expr)))
    return {name for name in _NAME.findall(bare) if name not in _KEYWORDS}


def label_names(expr: str) -> set[str]:
    grouped = {label.strip() for part in _GROUPING.findall(expr) for label in part.split(",")}
    return (grouped | {label for label, _ in matchers(expr)}) - {""}


def matchers(expr: str) -> list[tuple[str, str]]:
    """(label, value) of all that it selects by; alternatives of a pattern one by one."""
    found = [pair for part in _MATCHERS.findall(expr) for pair in _MATCHER.findall(part)]
    return [(label, value) for label, values in found for value in values.split("|")]


def rules() -> list[dict]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def check_parse(exprs: Iterable[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """`promtool check rules` over a file that records each expression."""
    written = [{"record": f"test:{k}", "expr": expr.replace(RATE_INTERVAL, "1m")} for k, expr in enumerate(exprs)]
    path = folder / "exprs.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "test", "rules": written}]}))
    return promtool("check", "rules", path)
