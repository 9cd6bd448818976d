r"""Characters and commands that are another writing of the same: Unicode mathematics, CJK punctuation, LaTeX synonyms.

>>> plain("3×10⁵")
'3\\times 10^{5}'
>>> plain("（3，4）")
'(3,4)'
>>> plain("1½")
'1\\frac{1}{2}'
"""

from __future__ import annotations

import re
import unicodedata

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱˣʸᵏᵐᵃᵇᵗ", "0123456789+-=()nixykmabt", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₒₓₙₖₘᵢⱼ", "0123456789+-=()aeoxnkmij", strict=True))
_FRACTIONS = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5",
    "⅙": "1/6", "⅚": "5/6", "⅐": "1/7", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8", "⅑": "1/9", "⅒": "1/10",
}  # fmt: skip
_GREEK_NAMES = """
alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi
omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega phi epsilon
"""
_GREEK = dict(
    zip(
        "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩϕϵ",
        _GREEK_NAMES.split(),
        strict=True,
    )
)
_SIGNS = {
    "−": "-", "–": "-", "‐": "-", "‑": "-", "‒": "-", "—": "-", "﹣": "-", "×": "\\times ", "⨯": "\\times ",
    "÷": "\\div ", "⋅": "\\cdot ", "·": "\\cdot ", "∙": "\\cdot ", "•": "\\cdot ", "∗": "*", "∕": "/",
    "⁄": "/", "±": "\\pm ", "∓": "\\mp ", "≤": "\\le ", "≥": "\\ge ", "⩽": "\\le ", "⩾": "\\ge ", "≦": "\\le ",
    "≧": "\\ge ", "≠": "\\ne ", "≈": "\\approx ", "≡": "\\equiv ", "∞": "\\infty ", "°": "^\\circ",
    "º": "^\\circ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∉": "\\notin ", "∅": "\\emptyset ",
    "⌀": "\\emptyset ", "⊂": "\\subset ", "⊆": "\\subseteq ", "∖": "\\setminus ", "∧": "\\land ",
    "∨": "\\lor ", "∣": "|", "′": "'", "″": "''", "’": "'", "‘": "'", "“": '"', "”": '"', "…": "\\ldots ",
    "⋯": "\\ldots ", "→": "\\to ", "⟨": "\\langle ", "⟩": "\\rangle ", "〈": "\\langle ", "〉": "\\rangle ",
    "⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil ", "∠": "\\angle ", "△": "\\triangle ",
    "∑": "\\sum ", "∏": "\\prod ", "∫": "\\int ", "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}",
    "ℚ": "\\mathbb{Q}", "ℂ": "\\mathbb{C}", "、": ",", "。": ".", "【": "[", "】": "]", "「": "", "」": "", "『": "",
    "』": "", "℃": "^\\circ\\text{C}", "℉": "^\\circ\\text{F}", "ℓ": "l", "µ": "µ", "㎝": "cm", "㎡": "m^2",
    "㎏": "kg", "¬": "\\neg ",
}  # fmt: skip
_MAP = {ord(k): v for k, v in _SIGNS.items()} | {ord(k): f"\\{v} " for k, v in _GREEK.items()}
_INVISIBLE = dict.fromkeys([0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0x00AD, 0x200E, 0x200F])
_SUPER_RUN = re.compile(f"[{''.join(map(re.escape, _SUPERSCRIPTS))}]+")
_SUB_RUN = re.compile(f"[{''.join(map(re.escape, _SUBSCRIPTS))}]+")
_VULGAR = re.compile(f"[{''.join(_FRACTIONS)}]")
_ROOTS = (
    (re.compile(r"√\s*\(([^()]{1,200})\)"), r"\\sqrt{\1}"),
    (re.compile(r"√\s*(\d+(?:\.\d+)?|[A-Za-z])"), r"\\sqrt{\1}"),
    (re.compile(r"√\s*(?=\{)"), r"\\sqrt"),
    (re.compile(r"∛\s*\(?(\d+|[A-Za-z])\)?"), r"\\sqrt[3]{\1}"),
    (re.compile(r"∜\s*\(?(\d+|[A-Za-z])\)?"), r"\\sqrt[4]{\1}"),
)
# The Greek letter for the sign of "micro"; `μN` may be a product.
_MICRO = re.compile(r"(?<=\d)(\s?)μ(?=(?:Hz|mol|[msgFHACVWJTL])\s*(?:$|/))")
# Words between or around values in Chinese and Japanese.
_CJK = (
    (
        re.compile(r"\\text\s*\{\s*([或和与且及])\s*\}|([或和与且及])"),
        lambda m: " or " if "或" in m.group() else " and ",
    ),
    (re.compile(r"^(?:(?:所以|因此|故|则|即|約|约|大约|约为)[，,]?)+\s*"), ""),
    (re.compile(r"(?:です|である|でした)\s*\.?$"), ""),
    (re.compile(r"百分之\s*(\d+(?:\.\d+)?)"), r"\1\\%"),
    (re.compile(r"(\d+)\s*分之\s*(\d+)"), r"\\frac{\2}{\1}"),
    (re.compile(r"平方\s*(厘米|分米|千米|米|公里)"), r"\1^2"),
    (re.compile(r"立方\s*(厘米|分米|米)"), r"\1^3"),
    (re.compile(r"(?<![\d.])(\d{1,12})(?:\.(\d{1,4}))?\s*[万萬]"), lambda m: m[1] + (m[2] or "").ljust(4, "0")),
    (re.compile(r"(?<![\d.])(\d{1,12})(?:\.(\d{1,8}))?\s*[亿億]"), lambda m: m[1] + (m[2] or "").ljust(8, "0")),
)


def plain(text: str) -> str:
    """The text in ASCII and LaTeX commands as far as its characters have such a writing."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text).translate(_INVISIBLE)
    for pattern, replacement in _ROOTS if any(c in text for c in "√∛∜") else ():
        text = pattern.sub(replacement, text)
    text = _MICRO.sub("\\1µ", text)
    text = _SUPER_RUN.sub(lambda m: "^{" + "".join(_SUPERSCRIPTS[c] for c in m.group()) + "}", text)
    text = _SUB_RUN.sub(lambda m: "_{" + "".join(_SUBSCRIPTS[c] for c in m.group()) + "}", text)
    text = _VULGAR.sub(_vulgar, text)
    text = "".join(_folded(c) for c in text).translate(_MAP)
    if not text.isascii():
        for pattern, replacement in _CJK:
            text = pattern.sub(replacement, text)
    return text


def _vulgar(found: re.Match[str]) -> str:
    top, bottom = _FRACTIONS[found.group()].split("/")
    return f"\\frac{{{top}}}{{{bottom}}}"


def _folded(character: str) -> str:
    """Full-width forms, mathematical alphabets, other spaces and other decimal digits in their plain form."""
    if character < "\u00a0":
        return character
    code = ord(character)
    if 0xFF01 <= code <= 0xFF5E or 0x1D400 <= code <= 0x1D7FF or character in "ℎℯℊℴℰℱℋℐℒℳℛ":
        return unicodedata.normalize("NFKC", character)
    if character.isspace() or unicodedata.category(character) == "Zs":
        return " "
    if unicodedata.category(character) == "Nd":
        return str(unicodedata.digit(character))
    return character
