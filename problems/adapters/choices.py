"""Multiple choice: the options of a row in whatever form it has them, and the letter that its answer means.

    {"text": ["2", "3"], "label": ["1", "2"]}    ARC, CommonsenseQA
    ["2", "3"]                                   MMLU; also as JSON in a string, and "A) 2", "(B) 3"
    {"A": "2", "B": "3"}                         MedQA
    "a ) 2 , b ) 3"                              MathQA
    four columns                                 where one of them is the answer (GPQA), they are shuffled

The problem gets the options as `(A) 2`, a line each; the gold is a letter, whatever the answer was.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chorus.problems.adapters.columns import Unusable, as_text, parsed

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
UNMATCHED = "an answer that names no option"
NO_LETTER = "a gold that is no option's letter"
UNCLEAR = "an answer that may be an index or a text"
# Columns that hold options, or one each, where nobody has said so.
_LISTS = ("choices", "options", "endings", "choice", "option", "candidates")
_SINGLE = (("opa", "opb", "opc", "opd"), ("A", "B", "C", "D"), ("option_a", "option_b"), ("option1", "option2"))
_SINGLE += (("choice_a", "choice_b"), ("correct_answer", "distractor1", "distractor2", "distractor3"))
_SINGLE += (("sol1", "sol2"), ("answerA", "answerB", "answerC"), ("ending0", "ending1", "ending2", "ending3"))
_TEXTS, _MARKS = ("text", "content", "value"), ("label", "key", "aoVal", "id")  # of an option that is an object
_NAMES = frozenset(_LISTS).union(*_SINGLE)
_LABEL = re.compile(r"\s*(?:[(\[]\s*([A-Za-z]|\d{1,2})\s*[)\]]|([A-Za-z]|\d{1,2})\s*[).:])\s*")
_IN_LINE = re.compile(r"(?:^|(?<=[\s,;]))\(?([A-Za-z])\s*[).:]\s*")


@dataclass(frozen=True)
class Options:
    labels: tuple[str, ...]
    texts: tuple[str, ...]


def options_of(given: Any) -> Options | None:
    """The options that a column holds; None where it holds none. Raises Unusable."""
    if isinstance(given, str):
        given = parsed(given) or (_in_line(given) if given.strip() not in ("", "[]", "{}") else None)
    if isinstance(given, tuple):  # a column each
        given = list(given)
    if not given:
        return None
    if not isinstance(given, list | dict):
        raise Unusable("options that can't be used", f"the options {given!r:.80} are no list")
    if isinstance(given, dict):
        texts = next((given[key] for key in ("text", "texts", "choices") if isinstance(given.get(key), list)), None)
        labels = given.get("label") or given.get("labels")
        if texts is None:
            given = {key: text for key, text in given.items() if text is not None}
            labels, texts = list(given), list(given.values())
    else:
        items = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in given]
        while items and items[-1] is None:
            items.pop()
        labels, texts = None, [_first(item, _TEXTS, item) if isinstance(item, dict) else item for item in items]
        if any(isinstance(item, dict) for item in items):
            labels = [_first(item, _MARKS) if isinstance(item, dict) else None for item in items]
    if any(isinstance(text, list | dict) for text in texts):
        raise Unusable("options that can't be used", f"the options {given!r:.80} are no texts")
    return _checked(labels, [as_text(text) for text in texts])


def _first(item: dict[str, Any], names: Sequence[str], default: Any = None) -> Any:
    """What stands under the first of these names."""
    return next((item[name] for name in names if name in item), default)


def _checked(labels: Any, texts: list[str]) -> Options:
    plain, own = _without_labels(texts)
    labels = [as_text(label) for label in labels] if isinstance(labels, list) else own
    if len(plain) < 2 or len(plain) > len(LETTERS) or not all(plain):
        raise Unusable("options that can't be used", f"the options {texts!r:.80} are not 2 to 26 texts")
    if len(set(plain)) < len(plain):
        raise Unusable("options that can't be used", f"two of the options {texts!r:.80} are the same")
    if len(labels) != len(plain) or (any(labels) and len({label.casefold() for label in labels}) < len(labels)):
        raise Unusable("options that can't be used", f"the labels {labels!r:.60} are not one for each option")
    return Options(tuple(labels), tuple(plain))


def shuffled(options: Options, problem: str) -> Options:
    """In an order that follows from the problem alone: the answer's column must not tell its letter."""

    def place(text: str) -> bytes:
        return hashlib.blake2b(f"{problem}\0{text}".encode(errors="surrogatepass"), digest_size=8).digest()

    texts = tuple(sorted(options.texts, key=place))
    return Options(tuple(LETTERS[: len(texts)]), texts)


def with_options(problem: str, options: Options) -> str:
    return "\n".join([problem, "", *(f"({LETTERS[k]}) {text}" for k, text in enumerate(options.texts))])


def named_letter(gold: str) -> str | None:
    """The letter that a gold is, or begins with: `B`, `(b)`, `\\text{B}`, `B. 42`; None where it is none.

    >>> named_letter(r"\\boxed{B}"), named_letter("B) 42"), named_letter("23 apples"), named_letter("A cat")
    ('B', 'B', None, None)
    """
    alone = re.fullmatch(r"[(\[]?([A-Za-z])[)\].:]?", re.sub(r"\\(?:boxed|text\w*|math\w*)|[${}*_\s]", "", gold))
    leading = re.match(r"\W*([A-Za-z])\s*[)\].:]\s*\S", gold)
    found = alone or leading
    return found[1].upper() if found else None


def lettered(problem: str) -> int:
    """How many options a problem's text has, by their letters in order: `(A) 2 (B) 3`, or `A. 2` at lines' begins; 0:
    that can't be told."""
    marks = re.findall(r"\(([A-Z])\)|^\s*([A-Z])[).:]", problem, re.MULTILINE)
    found = "".join(dict.fromkeys(a or b for a, b in marks))
    return len(found) if len(found) > 1 and found == LETTERS[: len(found)] else 0


def letter_of(answer: Any, options: Options, way: tuple[str, str] | None) -> str:
    """The letter of the option that an answer means. Raises Unusable where it means none, or might mean two."""
    if isinstance(answer, bool) or answer is None or as_text(answer) == "":
        raise Unusable("no answer", "the row has no answer; give `answer` or `answers`, or remove the row")
    text = as_text(answer)
    found = {name: at for name, at in _readings(text, options, way).items() if at is not None}
    if isinstance(answer, int | float) and way is None and "label" not in found:
        found = {"index": found["index"]} if "index" in found else {}
    if way is None and "label" in found:  # options with labels of their own are named by them
        found = {"label": found["label"]}
    if not found:
        raise Unusable(UNMATCHED, f"the answer {text!r:.60} is none of the options' letters, numbers and texts", text)
    if len(set(found.values())) > 1:
        raise Unusable(UNCLEAR, f"the answer {text!r:.60} may be {' or '.join(f'the {name}' for name in found)}", text)
    return LETTERS[next(iter(found.values()))]


def _readings(text: str, options: Options, way: tuple[str, str] | None) -> dict[str, int | None]:
    """Where each way of reading leads, None for nowhere."""
    count = len(options.texts)
    if way is not None and way[0] == "index":
        first = int(way[1] or 0)
        return {"index": int(text) - first if text.isdecimal() and first <= int(text) < count + first else None}
    labelled = re.fullmatch(r"[(\[]?\s*(\w{1,2})\s*[)\].:]?", text)
    label = labelled[1].casefold() if labelled else ""
    labels = [name.casefold() for name in options.labels]
    by_label = labels.index(label) if label in labels else None
    letter = LETTERS.casefold().find(label) if len(label) == 1 and label.isalpha() else -1
    by_letter = letter if 0 <= letter < count else None
    by_text = options.texts.index(text) if text in options.texts else None
    if by_text is None and (led := _LABEL.match(text)) and text[led.end() :] in options.texts:
        by_text = options.texts.index(text[led.end() :])
    if way is not None:
        return {"letter": by_letter if by_label is None else by_label} if way[0] == "letter" else {"text": by_text}
    index = int(text) if text.isdecimal() and int(text) < count else None
    of_its_own = any(labels)
    return {"label" if of_its_own else "letter": by_label if of_its_own else by_letter, "index": index, "text": by_text}


def _without_labels(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """`A) 2`, `B) 3` as the texts and the labels, where every option has its own; else no labels."""
    led = [_LABEL.match(text) for text in texts]
    labels = [(match[1] or match[2]).upper() if match else "" for match in led]
    in_order = "".join(labels) in (LETTERS[: len(texts)], "".join(str(k + 1) for k in range(len(texts))))
    if len(texts) > 1 and in_order and all(labels):
        return [text[match.end() :].strip() for text, match in zip(texts, led, strict=True) if match], labels
    return list(texts), [""] * len(texts)


def _in_line(text: str) -> list[str]:
    """The options of one text, each behind its letter, in order. Raises Unusable."""
    starts: list[re.Match[str]] = []
    for match in _IN_LINE.finditer(text):
        if match[1].upper() == LETTERS[len(starts) : len(starts) + 1]:
            starts.append(match)
    if len(starts) < 2:
        raise Unusable("options that can't be used", f"the options {text!r:.80} can't be told apart")
    ends = [match.start() for match in starts[1:]] + [len(text)]
    return [text[match.end() : end].strip(" ,;\n") for match, end in zip(starts, ends, strict=True)]


def unnamed_options(row: dict[str, Any]) -> str | None:
    """The column or the columns of this row that look like options, as a spec would name them."""
    if _NAMES.isdisjoint(row):
        return None
    for name in _LISTS:
        value = row.get(name)
        try:
            if isinstance(value, str | list | dict) and options_of(value) is not None:
                return name
        except Unusable:
            continue
    for names in _SINGLE:
        if all(as_text(row.get(name)) for name in names):
            return ",".join(names)
    return None
