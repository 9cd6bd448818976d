"""The extraction ladder of the paper, as published (arXiv 2602.03190): plain substring search, then a lossy clean-up.

    Minerva sentence > last box > "he answer is" > "final answer is" > Chinese phrase > last number

Mode `paper` stands for results that can be compared with the paper's, faults included: nothing here is mended.
"""

from __future__ import annotations

import re

from chorus.reward_server.graders.boxes import closers

ASSISTANT_HEADER = "<|im_start|>assistant"
STOP_STRINGS = ("</s>", "<|im_end|>", "<|endoftext|>", "[END]", "</answer>")
CHINESE_ANSWER_IS = "答案是"
MAX_CLEANED_CHARS = 10_000  # a longer text is no answer, and some of these patterns are quadratic

_NUMBER = re.compile(r"-?\d*\.?\d+")
_FRAC_SHORT = re.compile(r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])")
_FRAC_MIXED = re.compile(r"\\frac\s*([0-9a-zA-Z])\s*\{")
_FRAC_TAIL = re.compile(r"(\\frac\{[^{}]*\})\s*([0-9a-zA-Z])")
_SQRT_SHORT = re.compile(r"\\sqrt\s*([0-9a-zA-Z])")
_SLASH = re.compile(r"(-?\d+)/(-?\d+)")


def paper_cut(text: str) -> tuple[str, int, tuple[str, ...]]:
    """Steps 1 and 2 of the ladder: (what is left, its offset, what was cut)."""
    cuts: list[str] = []
    offset = 0
    if (header := text.find(ASSISTANT_HEADER)) >= 0:
        offset = header + len(ASSISTANT_HEADER)
        text = text[offset:]
        cuts.append(f"everything up to {ASSISTANT_HEADER}")
    for stop in STOP_STRINGS:
        if (at := text.find(stop)) >= 0:
            text = text[:at]
            cuts.append(f"everything from {stop}")
            offset += len(text) - len(text.lstrip())
            text = text.strip()
    return text, offset, tuple(cuts)


def paper_rung(body: str) -> tuple[str, str, int]:
    """(rung, text as found, where its literal place is to be looked for; -1: it has none)."""
    if "final answer is $" in body and "$. I hope" in body:
        raw = body.split("final answer is $", 1)[1].split("$. I hope", 1)[0].strip()
        return "minerva", raw, body.find("final answer is $") + len("final answer is $")
    if "boxed" in body:
        after = body.rsplit("boxed", 1)[1]
        at = len(body) - len(after)
        if after.startswith("{"):
            return "last_box", after[1 : closers(after, every=True).get(0, len(after))], at + 1
        return "last_box", after.split("$")[0].strip(), at
    for phrase, rung in (("he answer is", "he_answer_is"), ("final answer is", "final_answer_is")):
        if phrase in body:
            return rung, body.rsplit(phrase, 1)[1].strip(), body.rfind(phrase) + len(phrase)
    if CHINESE_ANSWER_IS in body:
        raw = body.split(CHINESE_ANSWER_IS)[1].strip().split("\n\n")[0].strip()
        return "chinese_answer_is", raw, body.find(CHINESE_ANSWER_IS) + len(CHINESE_ANSWER_IS)
    numbers = _NUMBER.findall(body.replace(",", ""))
    return ("last_number", numbers[-1], body.rfind(numbers[-1])) if numbers else ("none", "", -1)


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


def _complete_commands(text: str) -> str:
    """`\\frac12` and `\\sqrt2` with their braces."""
    text = _FRAC_SHORT.sub(r"\\frac{\1}{\2}", text)
    text = _FRAC_TAIL.sub(r"\1{\2}", _FRAC_MIXED.sub(r"\\frac{\1}{", text))
    text = _SQRT_SHORT.sub(r"\\sqrt{\1}", text)
    whole = _SLASH.fullmatch(text)
    return f"\\frac{{{whole[1]}}}{{{whole[2]}}}" if whole else text
