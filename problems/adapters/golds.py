r"""Whether a gold is an answer at all. What is not is left out and counted, and above a share refuses the source.

Only what no answer can be is named: worked solutions, proofs, words for "there is none". A gold of one sentence may be
meant, and formulas may be as long as they like.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from chorus.problems.adapters.columns import Unusable, as_text, parsed

MOST_WORDS = 30  # of a gold, formulas not counted
# What stands in an answer's place where there is none. Compared without case, \text{} and punctuation.
_NONE = frozenset(("notfound", "not found", "none", "null", "nan", "n/a", "na", "no answer", "unknown", "see solution"))
_PROOF = frozenset(("proof", "see proof", "proved", "proven", "qed", "q e d", "to prove", "证明", "略"))
_TRUTH = frozenset(("true", "false"))
_LAYOUT = re.compile(r"\\(?:boxed|fbox|text|mathrm|mbox)(?![a-zA-Z])|\\[,;:! ]|[\s$.,;:!?'\"{}`]")
_ENVIRONMENT = re.compile(r"\\begin\s*\{(\w+\*?)\}.*?\\end\s*\{\1\}", re.DOTALL)
_FORMULA = re.compile(r"\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]|\\[a-zA-Z]+", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]{2,}")
_SENTENCE_END = re.compile(r"(?<=[^\W\d_][.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z$\\\d])|(?<=[。！？])\s*(?=\S)")
# \frac, \times and \beta read as if their backslash began an escape.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]|\t(?=imes|ext|heta|frac|an\b|o\b|au\b)|\r(?=ight|m\b|ho\b)")
_HIDDEN_LIST = re.compile(r"\[\s*([\"']).*\1\s*\]", re.DOTALL)

WORKED = "worked solution"
SEVERAL_LINES = "several lines"
SENTENCES = "more than a sentence"
NO_ANSWER = "no answer"
NOT_FOUND = "notfound"
PROOF = "proof"
TRUTH = "true or false"
LIST = "a list"
OBJECT = "an object"
CONTROL = "a control character"


def texts_of(given: Any, kind: str, whole_list: bool) -> list[str]:
    """The golds of a problem of this kind, as texts. `whole_list`: each of a list is right.

    Raises Unusable.
    """
    items = list(given) if isinstance(given, list | tuple) else [given]
    if len(items) > 1 and not whole_list:
        raise Unusable(LIST, f"the gold {_short(given)} is a list: is each right, are all needed, or only the first?")
    if kind != "text" and (truth := next((item for item in items if isinstance(item, bool)), None)) is not None:
        raise Unusable(TRUTH, f"the gold {truth} is true or false", str(truth))
    texts = [as_text(item) for item in items]
    if not texts or not all(texts):
        raise Unusable(NO_ANSWER, "the row has no answer; give `answer` or `answers`, or remove the row")
    if kind in ("math", "choice", "text"):
        for item, text in zip(items, texts, strict=True):
            if (reason := fault(text, kind)) is not None or isinstance(item, dict | list):
                reason = reason or OBJECT
                raise Unusable(reason, f"the gold {_short(text)} is {_said(reason)}", text)
    return texts


def fault(gold: str, kind: str = "math") -> str | None:
    """What this is in place of an answer, None where it may be one."""
    plain = _plain(gold)
    if not plain:
        return NO_ANSWER
    if _HIDDEN_LIST.fullmatch(gold) and isinstance(parsed(gold), list):
        return LIST
    if gold.startswith("{") and isinstance(parsed(gold), dict):
        return OBJECT
    if kind == "text":
        return None
    if plain in _NONE:
        return NOT_FOUND
    if plain in _PROOF:
        return PROOF
    if plain in _TRUTH:
        return TRUTH
    if "####" in gold or ("<<" in gold and ">>" in gold):
        return WORKED
    if _CONTROL.search(gold):
        return CONTROL
    if "\\boxed" in gold and len(_WORD.findall(_FORMULA.sub(" ", gold))) > 2:
        return WORKED
    flat = _ENVIRONMENT.sub(" ", gold)
    if len(flat.strip().splitlines()) > 1:
        return SEVERAL_LINES
    prose = _FORMULA.sub(" ", flat)
    if len(_WORD.findall(prose)) > MOST_WORDS or _are_sentences(flat):
        return SENTENCES
    return None


def _are_sentences(text: str) -> bool:
    """Two or more, of five words in all: `5 cm. Wide`, `A. 3` and `Dr. Who` are none."""
    parts = [part for part in _SENTENCE_END.split(text) if len(part.split()) > 1]
    return len(parts) > 1 and sum(len(_WORD.findall(_FORMULA.sub(" ", part))) for part in parts) >= 5


def _plain(gold: str) -> str:
    bare = _LAYOUT.sub(" ", gold)
    return " ".join(bare.split()).casefold()


def _said(reason: str) -> str:
    article = {WORKED: "a worked solution", SEVERAL_LINES: "of several lines", PROOF: "a proof, no answer"}
    return article.get(reason, reason)


def _short(gold: Any, limit: int = 70) -> str:
    text = gold if isinstance(gold, str) else json.dumps(gold, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def worked_as(golds: Iterable[str]) -> str | None:
    r"""The step that finds the answer in these texts, where most of them are worked solutions of one form."""
    golds = list(golds)
    for mark, step in (
        ("####", "after:####"),
        ("\\boxed", "boxed"),
        ("</think>", "after:</think>"),
        ("The answer is:", "after:The answer is:"),
        ("The answer is", "after:The answer is"),
        ("Answer:", "after:Answer:"),
    ):
        if golds and sum(mark in gold for gold in golds) > len(golds) / 2:
            return step
    return None
