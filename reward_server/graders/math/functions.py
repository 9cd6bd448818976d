r"""Functions under every name that they go by, as the reader of formulas knows them.

>>> named("\\text{arcsinh}(1)")
'\\arsinh (1)'
>>> named("\\text{sech}^2 x")
'\\frac{1}{\\cosh^{2} x}'
"""

from __future__ import annotations

import re

_USUAL = {
    **{f"ar{name}": (f"ar{name}", f"arc{name}", f"a{name}") for name in ("sinh", "cosh", "tanh")},
    **{f"arc{name}": (f"a{name}",) for name in ("sin", "cos", "tan")},
    "arcsec": ("arcsec", "asec"),
    "arccsc": ("arccsc", "arccosec", "acsc"),
    "arccot": ("arccot", "acot"),
    "sinh": ("sinh",),
    "cosh": ("cosh",),
    "tanh": ("tanh",),
    "csc": ("cosec",),
}
_UPRIGHT = {"sinh": ("sh",), "cosh": ("ch",), "tanh": ("th",)}  # as they are called east of Berlin
_RECIPROCAL = {"cosh": ("sech",), "sinh": ("csch", "cosech"), "tanh": ("coth", "cth")}
_INVERSE = {"arcosh": ("arsech", "arcsech"), "arsinh": ("arcsch", "arccsch"), "artanh": ("arcoth", "arccoth")}

_BY_NAME = {name: command for command, names in _USUAL.items() for name in names}
_INVERSE_NAMES = {name: command for command, names in _INVERSE.items() for name in names}
_OF_ONE_OVER = {name: command for command, names in _RECIPROCAL.items() for name in names} | _INVERSE_NAMES
_IN_TEXT = {name: command for command, names in _UPRIGHT.items() for name in names}


def _any(names: dict[str, str]) -> str:
    return "|".join(sorted(names, key=len, reverse=True))


_NEEDED = re.compile(r"h|sec|cs?c|cot|a(?:sin|cos|tan)", re.IGNORECASE)
_NAME = re.compile(
    rf"\\text\s*\{{\s*(?P<text>{_any(_BY_NAME)})\s*\}}|(?<![A-Za-z\\])\\?(?P<bare>{_any(_BY_NAME)})(?![A-Za-z])"
)
_SHORT = re.compile(rf"(?<![\d.}}])(?<!\d )\\text\s*\{{\s*(?P<text>{_any(_IN_TEXT)})\s*\}}(?=\s*(?:\^|[({{\\\dxt]))")
_ARGUMENT = (
    r"\s*(?P<of>\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)|\{(?:[^{}]|\{[^{}]*\})*\}|\\frac\s*\{[^{}]*\}\s*\{[^{}]*\}"
    r"|\\[a-z]+(?:\s*\{[^{}]*\})?|\d+(?:\.\d+)?\s*(?:\\pi|[a-z](?![a-z]))?|[a-z](?![a-z]))"
)
_ONE_OVER = re.compile(
    rf"(?:\\text\s*\{{\s*(?P<text>{_any(_OF_ONE_OVER)})\s*\}}|(?<![A-Za-z\\])\\?(?P<bare>{_any(_OF_ONE_OVER)})(?![A-Za-z]))"
    rf"(?:\s*\^\s*(?:(?P<digit>\d)|\{{\s*(?P<power>-?\w+)\s*\}}))?{_ARGUMENT}"
)


def named(text: str) -> str:
    """The text with one command a function; `sech`, which the reader does not know, as `1/cosh`."""
    if not _NEEDED.search(text):
        return text
    text = _SHORT.sub(lambda found: f"\\{_IN_TEXT[found['text']]} ", text)
    text = _NAME.sub(lambda found: f"\\{_BY_NAME[found['text'] or found['bare']]} ", text)
    return _ONE_OVER.sub(_one_over, text)


def _one_over(found: re.Match[str]) -> str:
    name, of = found["text"] or found["bare"], found["of"]
    power = found["digit"] or found["power"]
    command = _OF_ONE_OVER[name]
    if power == "-1" and name not in _INVERSE_NAMES:
        return f"\\ar{command} (\\frac{{1}}{{{of}}})"
    if name in _INVERSE_NAMES:
        return found.group() if power else f"\\{command} (\\frac{{1}}{{{of}}})"
    return f"\\frac{{1}}{{\\{command}{f'^{{{power}}}' if power else ''} {of}}}"
