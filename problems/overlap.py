"""Problems that two sets share: the same text, nearly the same text, or the same text with other numbers.

    problem ──normalise──▶ tokens ──every two in a row──▶ shingles ──join──▶ pairs that share enough of them

Exact: equal tokens. Near: Jaccard similarity of the shingles of at least `least`, or one problem within another (of
the smaller one's shingles at least CONTAINED are in the larger one, so long as it has CONTAINED_LEAST of them). Of such
a pair the numbers and the answers are compared too: where both differ, it is a variant, a problem from the same mould.

The join is exact: it finds every pair above the bounds, by prefix filtering (Chaudhuri et al. 2006; Bayardo et al.
2007). Shingles are sorted by rarity. Where at least the share t of the n shingles of a set are in another set, one of
its rarest n - ceil(t n) + 1 is; so only those are looked up, and few sets have them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from problems.sources import Placed
from protocol.messages import Problem

SHINGLE = 2  # tokens
LEAST = 0.5
CONTAINED = 0.8
CONTAINED_LEAST = 20  # shingles: a short sentence within a long problem is no sign of anything

Kind = Literal["exact", "near", "variant"]

_DIAGRAM = re.compile(r"\[asy\].*?\[/asy\]", re.DOTALL | re.IGNORECASE)
_SPACING = re.compile(r"\\\\|\\(?:left|right|displaystyle|limits|qquad|quad|bigg?)(?![a-z])|\\[,;:!\s]|[$~&{}]")
_FONT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|emph|operatorname)\b")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,(?:\\!)?)(?=\d{3}(?!\d))")
_LETTERLESS = "\u3040-\u30ff\u3400-\u9fff"  # kana and Chinese characters: no spaces between words, so each is a token
_TOKEN = re.compile(rf"\d+(?:\.\d+)?|[{_LETTERLESS}]|[^\W\d_{_LETTERLESS}]+|[^\w\s]")
_SPELLED = {"dfrac": "frac", "tfrac": "frac", "leq": "le", "geq": "ge", "neq": "ne", "cdot": "*", "times": "*"}
_SPELLED |= {"×": "*", "·": "*", "−": "-", "–": "-", "≤": "le", "≥": "ge", "≠": "ne", "ldots": "...", "dots": "..."}
_WORDS = "zero _ two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_SPELLED |= {word: str(n) for n, word in enumerate(f"{_WORDS} seventeen eighteen nineteen twenty".split())}
_PUNCTUATION = frozenset(".,;:!?'\"`´‘’“”\\")


@dataclass(frozen=True)
class Overlap:
    """One pair. `similarity`: Jaccard, or the contained share where that is what was found."""

    left: Placed
    right: Placed
    kind: Kind
    similarity: float


def tokens(text: str) -> list[str]:
    """Words, numbers and symbols, in lower case, without punctuation, diagrams and what LaTeX only lays out.

    >>> tokens(r"Find $\\dfrac{1}{2}\\cdot 1{,}000$, please!")
    ['find', 'frac', '1', '2', '*', '1000', 'please']
    """
    text = unicodedata.normalize("NFKC", _DIAGRAM.sub(" ", text)).lower()
    text = _SPACING.sub(" ", _FONT.sub(" ", _THOUSANDS.sub("", text)))
    found = (_SPELLED.get(token, token) for token in _TOKEN.findall(text))
    return [token for token in found if token not in _PUNCTUATION] or text.split()


def find_overlaps(left: Sequence[Placed], right: Sequence[Placed] | None = None, least: float = LEAST) -> list[Overlap]:
    """All pairs of `left` and `right` at or above `least`, in the order of `left`.

    Without `right`: the pairs within `left`, each once, the earlier problem on the right.
    """
    others = left if right is None else right
    ours = [tokens(placed.problem.problem) for placed in left]
    theirs = ours if right is None else [tokens(placed.problem.problem) for placed in others]
    found: list[Overlap] = []
    for i, j, similarity in _join(_shingled(ours), _shingled(theirs), least, within=right is None):
        a, b = left[i], others[j]
        if ours[i] == theirs[j]:
            kind: Kind = "exact"
        else:
            alike = _numbers_agree(ours[i], theirs[j]) or _same_answer(a.problem, b.problem)
            kind = "near" if alike else "variant"
        found.append(Overlap(a, b, kind, similarity))
    return found


def _shingled(texts: Sequence[Sequence[str]]) -> list[set[str]]:
    """Every SHINGLE tokens in a row; of a shorter text, all its tokens as one."""
    return [{" ".join(words[k : k + SHINGLE]) for k in range(max(1, len(words) - SHINGLE + 1))} for words in texts]


def _join(
    left: Sequence[set[str]], right: Sequence[set[str]], least: float, within: bool
) -> Iterator[tuple[int, int, float]]:
    """(i, j, similarity) of every pair above the bounds."""
    count = Counter(shingle for shingles in (*left, *right) for shingle in shingles)
    by_rarity = [sorted(shingles, key=lambda s: (count[s], s)) for shingles in right]
    bound = min(least, CONTAINED)
    anywhere: dict[str, list[int]] = defaultdict(list)
    in_prefix: dict[str, list[int]] = defaultdict(list)
    for j, ordered in enumerate(by_rarity):
        for shingle in ordered:
            anywhere[shingle].append(j)
        for shingle in ordered[: _prefix(len(ordered), bound)]:
            in_prefix[shingle].append(j)
    for i, shingles in enumerate(left):
        ordered = by_rarity[i] if within else sorted(shingles, key=lambda s: (count[s], s))
        candidates: set[int] = set()
        for k, shingle in enumerate(ordered):
            # Of the smaller set the prefix counts, of the larger one any shingle; which is which is not known yet.
            index = anywhere if k < _prefix(len(ordered), bound) else in_prefix
            candidates.update(index.get(shingle, ()))
        for j in sorted(candidates):
            if within and j >= i:
                break
            if (similarity := _similarity(shingles, right[j], least)) is not None:
                yield i, j, similarity


def _prefix(size: int, share: float) -> int:
    return size - math.ceil(share * size) + 1


def _similarity(a: set[str], b: set[str], least: float) -> float | None:
    """Jaccard where that reaches `least`, else the contained share where that reaches CONTAINED, else None."""
    common, smaller = len(a & b), min(len(a), len(b))
    jaccard = common / (len(a) + len(b) - common)
    if jaccard >= least:
        return jaccard
    return common / smaller if smaller >= CONTAINED_LEAST and common >= CONTAINED * smaller else None


def _numbers_agree(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether the texts hold the same numbers, or one that is much shorter none that the other does not hold."""
    shorter, longer = sorted((a, b), key=len)
    ours, theirs = (Counter(word for word in words if word[0].isdigit()) for words in (shorter, longer))
    return ours == theirs or (len(shorter) < CONTAINED * len(longer) and bool(ours) and ours <= theirs)


def _same_answer(a: Problem, b: Problem) -> bool:
    """Whether the golds read alike; generated items have names there, which never do."""
    return bool({"".join(tokens(x)) for x in a.answers} & {"".join(tokens(x)) for x in b.answers})
