"""Clean-up of answer texts: the paper's lossy one, and ours, which keeps what changes a value.

`paper_cleanup` ends the training ladder of arXiv 2602.03190 (it drops units, percent signs, degrees and short
"x =" prefixes). `normalise` only removes what is typography: two answers with the same normal form are the
same answer, so equality of normal forms needs no algebra.
"""

from __future__ import annotations

import re

MAX_CLEANED_CHARS = 10_000  # a longer text is no answer, and some of these patterns are quadratic

_FRAC_SHORT = re.compile(r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])")
_FRAC_MIXED = re.compile(r"\\frac\s*([0-9a-zA-Z])\s*\{")
_FRAC_TAIL = re.compile(r"(\\frac\{[^{}]*\})\s*([0-9a-zA-Z])")
_SQRT_SHORT = re.compile(r"\\sqrt\s*([0-9a-zA-Z])")
_SLASH = re.compile(r"(-?\d+)/(-?\d+)")
_SENTENCE = re.compile(
    r"(?:\\text\s*\{\s*)?(?:(?:so|thus|hence|therefore),? )?(?:the )?(?:final )?answer(?: is|:)[:\s]*(?:\}\s*)?(?=\S)",
    re.IGNORECASE,
)
_BOX_PREFIX = re.compile(r"\\f?box(?:ed)?\s*\{")

# What only changes how a formula looks. Order matters: `\left` must not eat `\leftarrow`.
_TYPOGRAPHY = (
    (re.compile(r"\\!"), ""),
    (re.compile(r"\\(?:left|right|big|Big|bigg|Bigg)[lr]?(?![a-zA-Z])\.?"), ""),
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\(?:displaystyle|textstyle|limits)(?![a-zA-Z])"), ""),
    (re.compile(r"(?<!\\)\\(?:,|;|:|>|quad(?![a-zA-Z])|qquad(?![a-zA-Z])|\s)|(?<!\\)~"), " "),
    (
        re.compile(r"\\(?:text(?:bf|it|rm|normal|sf)?|mathrm|mathbf|mathit|mathsf|mbox|operatorname)(?=\s*\{)"),
        r"\\text",
    ),
    (re.compile(r"\\neq(?![a-zA-Z])"), r"\\ne"),
    (re.compile(r"\\leq(?![a-zA-Z])|≤"), r"\\le"),
    (re.compile(r"\\geq(?![a-zA-Z])|≥"), r"\\ge"),
    (re.compile(r"−|–"), "-"),
    (re.compile(r"×"), r"\\times "),
    (re.compile(r"π"), r"\\pi "),
    (re.compile(r"∞"), r"\\infty "),
    (re.compile(r"°"), r"^\\circ"),
    (re.compile(r"√\s*(\d+)"), r"\\sqrt{\1}"),
    (re.compile(r"\\cdotp?(?![a-zA-Z])|⋅|·"), r"\\cdot "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\colon(?![a-zA-Z])"), ":"),
    (re.compile(r"\\(?:bf|rm|it|boldsymbol|underline|bm)(?=\s*\{)"), ""),
    # Commands without their backslash, as models type them.
    (
        re.compile(r"(?<![\\a-zA-Z])(arc(?:sin|cos|tan)|sin|cos|tan|cot|sec|csc|ln|log|exp|pi|sqrt)(?![a-zA-Z])"),
        r"\\\1",
    ),
    (re.compile(r"(?<![\\a-zA-Z])inf(?:ty|inity)(?![a-zA-Z])"), r"\\infty"),
    (re.compile(r"\\sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\\(?:lbrace|rbrace)(?![a-zA-Z])"), lambda m: r"\{" if "l" in m.group() else r"\}"),
)


def paper_cleanup(text: str) -> str:
    """The LaTeX clean-up at the end of the paper's extraction ladder; lossy on purpose, as published."""
    if len(text) > MAX_CLEANED_CHARS:
        return text.strip()
    text = re.sub(r"\n\s*", "", text)
    text = text.removeprefix(":").removesuffix(".").removesuffix("/")
    text = text.strip().rstrip(".").replace("\\!", "")
    text = re.sub(r"\\begin\{array\}\{.*?\}", r"\\begin{pmatrix}", text)
    text = text.replace("\\end{array}", "\\end{pmatrix}").replace("bmatrix", "pmatrix")
    text = text.replace("tfrac", "frac").replace("dfrac", "frac")
    text = text.replace("\\neq", "\\ne").replace("\\leq", "\\le").replace("\\geq", "\\ge")
    text = text.replace("\\left", "").replace("\\right", "").replace("\\{", "{").replace("\\}", "}")
    text = re.sub(r"\\text\{[^{}]*\}$", "", text).strip() or text
    text = text.replace("^{\\circ}", "").replace("^\\circ", "")
    text = text.replace("\\$", "").replace("$", "").replace("\\(", "").replace("\\)", "")
    text = re.sub(r"\\text\{([^{}]*)\}", r"\1", text)
    for prefix in ("x=", "y=", "z=", "x\\in", "y\\in", "z\\in", "x\\to", "y\\to", "z\\to"):
        text = text.replace(prefix, "")
    text = text.replace("\\emptyset", "{}").replace("(-\\infty,\\infty)", "\\mathbb{R}")
    text = text.replace("\\%", "").replace("%", "").replace(" .", " 0.").replace("{.", "{0.")
    text = text.replace("infinity", "\\infty").replace("\\mathbf", "")
    text = re.sub(r"\\mbox\{[^{}]*\}", "", text)
    text = re.sub(r"(\d+)\.0*([^\d])", r"\1\2", text)
    text = re.sub(r"(\d+)\.0*$", r"\1", text)
    if text.startswith("."):
        text = "0" + text
    name, equals, value = text.partition("=")
    if equals and len(name) <= 2 and "=" not in value:
        text = value
    return _complete_commands(text.replace("\\sqrt ", "\\sqrt")).replace(" ", "")


def unwrap(text: str) -> str:
    """An answer without what encloses all of it: `$...$`, `\\(...\\)`, `\\[...\\]`, `\\boxed{...}`."""
    while True:
        before = text = text.strip()
        box = _BOX_PREFIX.match(text)
        if box and text.endswith("}") and _closes_at_end(text, box.end() - 1):
            text = text[box.end() : -1]
        for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
            inner = text[len(opening) : len(text) - len(closing)]
            if (
                len(text) > len(opening) + len(closing)
                and text.startswith(opening)
                and text.endswith(closing)
                and "$" not in inner
                and not inner.endswith("\\")
            ):
                text = inner
                break
        if text == before:
            return text


def normalise(text: str) -> str:
    """The normal form of an answer: same value, no typography. Letters keep their case."""
    text = unwrap(text)
    for pattern, replacement in _TYPOGRAPHY:
        text = pattern.sub(replacement, text)
    text = unwrap(text.replace("\0", "")).rstrip(".").strip()
    text = _complete_commands(text)
    while (whole := re.fullmatch(r"\\text\s*\{([^{}]*)\}", text)) is not None:
        text = whole.group(1).rstrip(".").strip()
    text = unwrap(_SENTENCE.sub("", text, count=1)) if _SENTENCE.match(text) else text
    return re.sub(r"\s+", " ", text)


def squeeze(text: str) -> str:
    """A normal form without its spaces, for comparison only: "1 1/2" and "11/2" must not meet here."""
    return re.sub(r"(?<=\d) (?=\d)", "_", text).replace(" ", "")


def _complete_commands(text: str) -> str:
    """`\\frac12` and `\\sqrt2` with their braces."""
    text = _FRAC_SHORT.sub(r"\\frac{\1}{\2}", text)
    text = _FRAC_TAIL.sub(r"\1{\2}", _FRAC_MIXED.sub(r"\\frac{\1}{", text))
    text = _SQRT_SHORT.sub(r"\\sqrt{\1}", text)
    whole = _SLASH.fullmatch(text)
    return f"\\frac{{{whole[1]}}}{{{whole[2]}}}" if whole else text


def _closes_at_end(text: str, opening: int) -> bool:
    depth = 0
    for at in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at == len(text) - 1
    return False
