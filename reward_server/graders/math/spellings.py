r"""One spelling for what can be written in several: a table of patterns, tried in its order.

>>> spelled("\\dfrac{1}{2} \\leqslant x")
'\\frac{1}{2} \\le x'
"""

from __future__ import annotations

import re
from collections.abc import Callable

_Replacement = str | Callable[[re.Match[str]], str]
_FUNCTIONS = r"(arc(?:sin|cos|tan)|sin|cos|tan|cot|sec|csc|ln|log|exp|pi|sqrt|frac)"


def _together(found: re.Match[str]) -> str:
    """Digits in groups, as they are written in Switzerland."""
    return found.group().replace("'", "")


# What only changes how a formula looks: (a text that must occur, pattern, replacement). Order matters: `\left` must not
# eat `\leftarrow`, and what opens a group (`\dfrac`, `\text`) gets its usual name before anything is read by it.
_SPELLINGS: tuple[tuple[str, re.Pattern[str], _Replacement], ...] = tuple(
    (needle, re.compile(pattern), replacement)
    for needle, pattern, replacement in (
        ("\\", r"\\!", ""),
        ("\\", r"\\(?:left|right|middle|big|Big|bigg|Bigg)[lr]?(?![a-zA-Z])\.?", ""),
        ("frac", r"\\(?:[dtc]|nice|s|x|flat)frac(?![a-zA-Z])", r"\\frac"),
        ("binom", r"\\[dt]binom(?![a-zA-Z])", r"\\binom"),
        (
            "\\",
            r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|strut|allowbreak"
            r"|phantom\{[^{}]*\})(?![a-zA-Z])",
            "",
        ),
        ("{\\,}", r"\{\\,\}", ""),
        ("{,}", r"\{,\}", ","),
        ("\\ ", r"(?<!\\)\\\s", " "),
        ("\\", r"(?<!\\)\\(?:,|;|:|>|quad(?![a-zA-Z])|qquad(?![a-zA-Z]))", " "),
        ("~", r"(?<!\\)~", " "),
        ("\\", r"\\(?:hspace|vspace|hskip)\*?\s*\{[^{}]{0,20}\}", " "),
        ("color", r"\\(?:text)?color\s*\{[^{}]{0,30}\}\s*", ""),
        ("mathbf", r"(^|\\in|=)\s*\\mathbf\s*(?:\{\s*([RZNQ])\s*\}|\s([RZNQ]))", r"\1\\mathbb{\2\3}"),
        ("\\big", r"\\big(cup|cap)(?![A-Za-z]|\s*_)", r"\\\1"),
        (  # vectors; of hats those of the unit vectors alone: others are estimates
            "\\",
            r"\\(?:vec|hat(?=\s*\{?\s*[ijk])|boldsymbol|bm|mathbf)\s*(?:\{\s*([a-z])\s*\}|\s+([a-z])(?![A-Za-z]))",
            r" \1\2 ",
        ),
        ("\\wide", r"\\wide(hat|tilde)\s*\{\s*([A-Za-z]|\\[a-z]+)\s*\}", r"\\\1{\2}"),
        ("\\", r"\\(hat|tilde|d?dot)\s+([A-Za-z])(?![A-Za-z])", r"\\\1{\2}"),
        ("\\", r"\\(bar|hat|tilde|d?dot)\s*(\\(?!text|frac|sqrt)[a-zA-Z]+)", r"\\\1{\2}"),
        (
            "\\",
            r"\\(?:text(?:bf|it|rm|normal|sf|tt|up|sc)?|mathrm|mathbf|mathit|mathsf|mathtt|mathnormal|mbox"
            r"|hbox|operatorname\*?|emph|bold|rm)"
            r"(?=\s*\{)",
            r"\\text",
        ),
        ("\\", r"\\(?:mathrm|mathsf|text)\s+([A-Za-z])(?![A-Za-z])", r"\\text{\1}"),
        ("^", r"\^\s*(?:\\top(?![a-z])|\{\s*\\(?:top|intercal)\s*\}|(\{\s*)?\\text\s*\{\s*T\s*\}(?(1)\s*\}))", "^{T}"),
        ("\\", r"\\(?:bar|overline)\s*(?:\{\s*([A-Za-z])\s*\}|([A-Za-z])(?![A-Za-z]))", r"\\bar{\1\2}"),
        ("\\", r"\\(?:bf|it|boldsymbol|underline|bm|mathop|mathord)(?=\s*\{)", ""),
        ("{\\", r"\{\\(?:rm|bf|it|sf|tt)\s+([^{}]*)\}", r"\\text{\1}"),
        ("\\", r"^\s*\\(?:bf|it|rm|sf|tt|sl|em)(?![A-Za-z])\s*(?!\{)", ""),
        # Money in front; later `\text{\$}` is dropped.
        ("US", r"^(-?)\s*(?:\\text\s*\{\s*US\s*\\?\$\s*\}|\\text\s*\{\s*US\s*\}\s*\\\$)", r"\1USD "),
        ("\\text", r"^(-?)\s*\\text\s*\{\s*(Rs\.?|INR|USD|EUR|GBP|[€£¥₹])\s*\}(?=\s*[-\d.\\])", r"\1\2 "),
        ("\\text", r"\\text\s*\{\s*([ei]|\\pi|d(?=\s*\}\s*[a-z]))\s*\}", r" \1 "),
        (
            "\\text",
            r"\\text\s*\{\s*(sin|cos|tan|cot|sec|csc|sinh|cosh|tanh|arcsin|arccos|arctan|ln|log|exp)\s*\}",
            r"\\\1 ",
        ),
        ("\\text", r"\\text\s*\{\s*(max|min|gcd|lcm)\s*\}(?=\s*[({_\\])", r"\\\1 "),
        ("\\{", r"\\(max|min|gcd|lcm)\s*\\\{([^{}]*)\\\}", r"\\\1(\2)"),
        # The Russian and Chinese names of functions.
        ("tg", r"\\text\s*\{\s*(arc)?co?tg\s*\}|(?<![A-Za-z])\\?(arc)?co?tg(?![A-Za-z])", r"\\\1\2cot "),
        ("tg", r"\\text\s*\{\s*(arc)?tg\s*\}|(?<![A-Za-z])\\?(arc)?tg(?![A-Za-z])", r"\\\1\2tan "),
        ("lg", r"\\text\s*\{\s*lg\s*\}|\\lg(?![A-Za-z])", r"\\log_{10} "),
        ("\\text", r"\\text\s*\{\s*((?:[-+]\s*)?[\d.,\s]*\d[\d.,]*)\s*\}", r"\1"),
        ("Omega", r"\\text\s*\{\s*([kMGm])\s*(?:\}\s*(?:\\text\s*\{\s*)?)?\\Omega\s*(?:\}|$)", r"\\text{\1ohm}"),
        ("Omega", r"(?<=\d)\s*([kM])\s*\\Omega\s*$", r"\\text{\1ohm}"),
        ("Omega", r"(?<=[\d} ])(?:\\text\s*\{\s*)?\\Omega(?![A-Za-z])(?:\s*\})?\s*$", r"\\text{ohm}"),
        (
            "\\mu",
            r"\\mu\s*\\text\s*\{\s*(Hz|[msgFHACVWJNTL])\s*\}|\\text\s*\{\s*\\mu\s*(Hz|[msgFHACVWJNTL])\s*\}",
            r"\\text{u\1\2}",
        ),
        ("circ", r"\\text\s*\{\s*\^\s*\{?\s*\\circ\s*\}?\s*([CF])\s*\}", r"^\\circ\\text{\1}"),
        ("circ", r"\\text\s*\{\s*(\^\s*\{?\s*\\circ\s*\}?)\s*\}", r"\1"),
        (
            "egree",
            r"(?:\\text\s*\{\s*)?[dD]egrees?\s+(C|F)(?:elsius|ahrenheit|(?![A-Za-z]))\s*\}?$",
            r"^\\circ\\text{\1}",
        ),
        ("\\text", r"\\text\s*\{\s*(?:,\s*)?(and|or)\s*\}", r"\\text{ \1 }"),
        ("\\text", r"\\text\s*\{\s*(?:\\?\$|\\%|%)\s*\}", ""),
        ("\\ne", r"\\(?:neq|not\s*=)(?![a-zA-Z])", r"\\ne"),
        ("\\not", r"\\not\s*=", r"\\ne "),
        ("\\le", r"\\leq(?:q|slant)?(?![a-zA-Z])", r"\\le"),
        ("\\ge", r"\\geq(?:q|slant)?(?![a-zA-Z])", r"\\ge"),
        ("<", r"<\s*=|=\s*<", r"\\le "),
        (">", r">\s*=", r"\\ge "),
        ("!=", r"(?<=\s)!=", r"\\ne "),
        ("\\empty", r"\\(?:var)?nothing|\\emptyset", r"\\emptyset"),
        ("\\varnothing", r"\\varnothing", r"\\emptyset"),
        ("\\var", r"\\var(epsilon|phi|theta|rho|sigma|kappa)(?![A-Za-z])", r"\\\1"),
        ("\\phi", r"^\s*\\phi\s*$", r"\\emptyset"),
        ("\\{", r"^\s*\\\{\s*\\\}\s*$", r"\\emptyset"),
        ("{}", r"^\s*\{\s*\}\s*$", r"\\emptyset"),
        ("dots", r"\\(?:c|l|v|d)?dots(?:[cbmio])?(?![a-zA-Z])", r"\\ldots"),
        ("...", r"\.{3,}", r"\\ldots "),
        ("\\cdotp", r"\\cdotp(?![a-zA-Z])", r"\\cdot"),
        ("\\ast", r"\\ast(?![a-zA-Z])", "*"),
        ("\\colon", r"\\colon(?![a-zA-Z])", ":"),
        ("vert", r"\\[lr]?vert(?![a-zA-Z])", "|"),
        ("Vert", r"\\[lr]?Vert(?![a-zA-Z])", r"\\|"),
        ("brac", r"\\(?:lbrace)(?![a-zA-Z])", r"\\{"),
        ("brac", r"\\(?:rbrace)(?![a-zA-Z])", r"\\}"),
        ("brack", r"\\lbrack(?![a-zA-Z])", "["),
        ("brack", r"\\rbrack(?![a-zA-Z])", "]"),
        ("\\p", r"\\pounds(?![a-zA-Z])", "£"),
        ("mod", r"\\pmod\s*(?:\{([^{}]*)\}|(\d|[a-z]))", r"(mod \1\2)"),
        ("mod", r"\(\s*\\?(?:b?mod|text\s*\{\s*mod\s*\})\s*(?:\{([^{}]*)\}|([^(){}]+))\)", r"(mod \1\2)"),
        ("equiv", r"(\\equiv[^()]*?)\s*,?\s*\\?(?:b?mod|text\s*\{\s*mod\s*\})\s*\{?([\w^]+)\}?\s*$", r"\1 (mod \2)"),
        ("\\bmod", r"\\bmod(?![a-zA-Z])", r"\\mod"),
        ("**", r"\*\*", "^"),
        ("10", r"(?<=\d)\s*[xX]\s*(?=10\s*\^)", r"\\times "),
        ("_", r"\^\s*\{?\s*(\d+)\s*\}?\s*/\s*_\s*\{?\s*(\d+)\s*\}?", r"\\frac{\1}{\2}"),
        (  # combinations; with a small number below, C is the name of something else
            "C",
            r"(?<![\\A-Za-z])(?:\\text\s*\{\s*C\s*\}|C)\s*_\s*(?:\{([^{}]{2,12}|[4-9a-zA-Z])\}|([4-9a-zA-Z]))\s*"
            r"\^\s*(?:\{([^{}]{1,12}(?<![+-]))\}|(\w))",  # a sign at its end is a charge
            r"\\binom{\1\2}{\3\4}",
        ),
        ("C", r"\{\s*\}\s*[\^_]\s*\{?\s*(\w+)\s*\}?\s*C\s*_\s*\{?\s*(\w+)\s*\}?", r"\\binom{\1}{\2}"),
        ("{", r"\{\s*\}\s*(?=\^)", ""),
        # Commands without their backslash, as models type them.
        ("", rf"(?<![\\a-zA-Z]){_FUNCTIONS}(?![a-zA-Z])", r"\\\1"),
        ("inf", r"(?<![\\a-zA-Z])inf(?:ty|inity)(?![a-zA-Z])", r"\\infty"),
        ("oo", r"(?<![\\a-zA-Z])oo(?![a-zA-Z])", r"\\infty"),
        ("sqrt", r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        ("\\arc", r"\\arc\s*\\?(sin|cos|tan)(?![a-zA-Z])", r"\\arc\1"),
        ("^{-1}", r"\\(sin|cos|tan)\s*\^\s*\{\s*-1\s*\}", r"\\arc\1"),
        ("\\div", r"\\div(?![a-zA-Z])", "/"),
        (
            "/",
            r"(?<![\\A-Za-z])(d(?:\^\{?\d\}?)?\s*[A-Za-z])\s*/\s*(d\s*[A-Za-z](?:\^\{?\d\}?)?)(?![A-Za-z])",
            r"\\frac{\1}{\2}",
        ),
        ("\\math", r"\\math(?:cal|scr|frak)\s*(?:\{\s*([A-Za-z])\s*\}|([A-Za-z])(?![A-Za-z]))", r"\1\2"),
        ("\\sim", r"^\s*[A-Z]\s*\\sim(?![a-z])\s*(?=(?:\\text\s*\{[A-Za-z]+\}|[A-Za-z]+)\s*\()", ""),
        ("\\mu", r"(?<=\d)\s*\\mu\s*(Hz|[msgFLACVWJT])\s*$", r"\\text{u\1}"),
        ("\\", r"\\(Re|Im)(?![a-zA-Z])", r"\\text{\1}"),
        ("\\text", r"\\text\s*\{\s*(Re|Im)\s*\}\s*([a-z])(?![A-Za-z])", r"\\text{\1}(\2)"),
        ("\\text", r"(?<=\d)\s*\\text\s*\{\s*[eE]\s*\}\s*(?=[-+]?\d)", "e"),
        ("'", r"(?<![\d'.])(\d{1,3})((?:'\d{3})+)(?!\d|')", _together),
        # Intervals whose open ends have their brackets turned outwards.
        ("]", r"(^|\\(?:cup|cap|in|setminus)(?![a-z])|=)\s*\](?=[^\[\]()]{1,80}[,;][^\[\]()]{1,80}[\[\]])", r"\1 ("),
        ("[", r"([\[(][^\[\]()]{1,80}[,;][^\[\]()]{1,80})\[(?=\s*(?:$|\\cup|\\cap|\\setminus))", r"\1)"),
    )
)
_NEEDS_FUNCTIONS = re.compile(r"sin|cos|tan|cot|sec|csc|ln|log|exp|pi|sqrt|frac")
MAX_NAME_CHARS = 40
# Words for what has a sign of its own, and the usual spellings of one verdict.
_NAMED_SETS = {
    "all real numbers": "\\mathbb{R}",
    "all reals": "\\mathbb{R}",
    "the real numbers": "\\mathbb{R}",
    "the set of all real numbers": "\\mathbb{R}",
    "all integers": "\\mathbb{Z}",
    "the integers": "\\mathbb{Z}",
    "empty set": "\\emptyset",
    "the empty set": "\\emptyset",
    "\\o": "\\emptyset",
    **dict.fromkeys(("no solution", "no solutions", "there is no solution", "there are no solutions"), "\\emptyset"),
    **dict.fromkeys(
        ("no real solutions", "there is no real solution", "there are no real solutions"), "no real solution"
    ),
    "dne": "does not exist",
    **dict.fromkeys(
        (
            "infinitely many",
            "infinitely many solutions",
            "infinite solutions",
            "an infinite number of solutions",
            "an infinite number",
            "there are infinitely many",
            "there are infinitely many solutions",
        ),
        "\\infty",
    ),
    "positive infinity": "\\infty",
    "negative infinity": "-\\infty",
}


def spelled(text: str) -> str:
    """The text with the usual command for each sign, in the usual form."""
    for needle, pattern, replacement in _SPELLINGS:
        if needle in text if needle else _NEEDS_FUNCTIONS.search(text):
            text = pattern.sub(replacement, text)
    return text


def sign_for(text: str) -> str:
    """The sign for a whole text that says in words what has one."""
    return _NAMED_SETS.get(text.casefold(), text) if len(text) < MAX_NAME_CHARS else text
