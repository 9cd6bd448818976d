r"""Commands that were typed without the braces around what they take.

>>> braced("\\frac12 + x^\\frac12")
'\\frac{1}{2} + x^{\\frac{1}{2}}'
"""

from __future__ import annotations

import re

_FRAC_SHORT = re.compile(r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])")
_FRAC_MIXED = re.compile(r"\\frac\s*([0-9a-zA-Z])\s*\{")
_FRAC_TAIL = re.compile(r"(\\frac\{[^{}]*\})\s*([0-9a-zA-Z])")
_FRAC_COMMANDS = re.compile(
    r"\\frac\s*(\\(?:pi|alpha|beta|theta)(?![a-zA-Z])|\d)\s*(\\(?:pi|alpha|beta|theta)(?![a-zA-Z])|\d)"
)
_SQRT_SHORT = re.compile(r"\\sqrt\s*(\[[^\[\]]{1,20}\])?\s*([0-9a-zA-Z]|\\pi(?![a-zA-Z]))")
_ROOT_OF = re.compile(r"\\root\s*\{?(\d+|[a-z])\}?\s*\\of\s*(?:\{([^{}]*)\}|(\d|[a-zA-Z]))")
MAX_OVER = 10
_OVER = re.compile(r"\\over(?![a-zA-Z])")
_POWER_COMMAND = re.compile(
    r"\^\s*(\\(?:frac|sqrt)\s*(?:\[\d\])?\s*\{[^{}]*\}(?:\s*\{[^{}]*\})?|\\(?:pi|infty|theta|alpha)(?![a-zA-Z]))"
)
_SLASH = re.compile(r"(-?\d+)/(-?\d+)")


def braced(text: str) -> str:
    r"""`\frac12`, `\sqrt2` and `x^\frac12` with their braces."""
    if "\\" in text:
        text = _without_over(text) if "\\over" in text else text
        text = _FRAC_SHORT.sub(r"\\frac{\1}{\2}", text)
        text = _FRAC_TAIL.sub(r"\1{\2}", _FRAC_MIXED.sub(r"\\frac{\1}{", text))
        text = _FRAC_COMMANDS.sub(r"\\frac{\1}{\2}", text)
        text = _SQRT_SHORT.sub(r"\\sqrt\1{\2}", text)
        if "\\root" in text:
            text = _ROOT_OF.sub(r"\\sqrt[\1]{\2\3}", text)
        text = _POWER_COMMAND.sub(r"^{\1}", text)
    whole = _SLASH.fullmatch(text)
    return f"\\frac{{{whole[1]}}}{{{whole[2]}}}" if whole else text


def _without_over(text: str) -> str:
    """`{a \\over b}` as `\\frac{a}{b}`: what stands in the braces around it, or all of the text."""
    for _ in range(MAX_OVER):
        if (over := _OVER.search(text)) is None:
            break
        start, end = over.start(), over.end()
        depth = 0
        while start > 0 and (depth := depth + {"}": 1, "{": -1}.get(text[start - 1], 0)) >= 0:
            start -= 1
        depth = 0
        while end < len(text) and (depth := depth + {"{": 1, "}": -1}.get(text[end], 0)) >= 0:
            end += 1
        top, bottom = text[start : over.start()].strip(), text[over.end() : end].strip()
        text = f"{text[: max(0, start - 1)]}\\frac{{{top}}}{{{bottom}}}{text[end + 1 :]}"
    return text
