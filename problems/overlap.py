"""Problems that two sets share: the same text, nearly the same text, or the same text with other numbers.

    problem ──normalise──▶ tokens ──every two in a row──▶ shingles ──join──▶ pairs that share enough of them

Exact: equal tokens. Near: Jaccard similarity of the shingles of at least `least`, or one problem within another (of
the smaller one's shingles at least CONTAINED are in the larger one, so long as it has CONTAINED_LEAST of them). Of such
a pair the answers are compared too: where they are other numbers, or read otherwise and the numbers in the texts differ
as well, it is a variant: another problem from the same mould.

The join is exact: it finds every pair above the bounds, by prefix filtering (Chaudhuri et al. 2006; Bayardo et al.
2007). Shingles are sorted by rarity. Where two sets have at least the share t of the n shingles of one in common, the
rarest common one is among the n - ceil(t n) + 1 rarest of that one. Of alike sets that holds on both sides, of a set
within another one on the smaller side; so few shingles are looked up, and few sets have them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from chorus.problems.sources import Placed
from chorus.protocol.messages import Problem

SHINGLE = 2  # tokens
LEAST = 0.5
CONTAINED = 0.9
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
    found = [_SPELLED.get(token, token) for token in map(str, _TOKEN.findall(text))]
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
        same = _is_same(a.problem, ours[i], b.problem, theirs[j])
        equal = ours[i] == theirs[j]
        # A text that leaves everything to its diagram is not the same problem because the words are.
        drawn = _DIAGRAM.search(a.problem.problem) or _DIAGRAM.search(b.problem.problem)
        kind: Kind = "exact" if equal and (same or not drawn) else "near" if same else "variant"
        found.append(Overlap(a, b, kind, similarity))
    return found


def sharing(problems: Iterable[Problem], others: Iterable[Problem]) -> set[str]:
    """The ids of the problems that are among the others, equal or nearly equal; variants are other problems."""
    left, right = ([Placed(p.id, p, {}) for p in each] for each in (problems, others))
    return {overlap.left.problem.id for overlap in find_overlaps(left, right) if overlap.kind != "variant"}


def _shingled(texts: Sequence[Sequence[str]]) -> list[set[str]]:
    """Every SHINGLE tokens in a row; of a shorter text, all its tokens as one."""
    return [{" ".join(words[k : k + SHINGLE]) for k in range(max(1, len(words) - SHINGLE + 1))} for words in texts]


def _join(
    left: Sequence[set[str]], right: Sequence[set[str]], least: float, within: bool
) -> Iterator[tuple[int, int, float]]:
    """(i, j, similarity) of every pair above the bounds."""
    count = Counter(shingle for shingles in (*left, *right) for shingle in shingles)

    def by_rarity(shingles: set[str]) -> list[str]:
        return sorted(shingles, key=lambda s: (count[s], s))

    alike, within_us, anywhere = _Index(), _Index(), _Index()
    for j, shingles in enumerate(right):
        ordered = by_rarity(shingles)
        alike.add(j, _rarest(ordered, least))
        within_us.add(j, _rarest(ordered, CONTAINED) if len(ordered) >= CONTAINED_LEAST else ())
        anywhere.add(j, ordered)
    for i, shingles in enumerate(left):
        ordered = by_rarity(shingles)
        candidates = alike.holders(_rarest(ordered, least)) | within_us.holders(ordered)
        if len(ordered) >= CONTAINED_LEAST:
            candidates |= anywhere.holders(_rarest(ordered, CONTAINED))
        for j in sorted(candidates):
            if within and j >= i:
                break
            if (similarity := _similarity(shingles, right[j], least)) is not None:
                yield i, j, similarity


class _Index:
    """Which sets hold a shingle, for chosen shingles of each."""

    def __init__(self) -> None:
        self._holders: dict[str, list[int]] = defaultdict(list)

    def add(self, j: int, shingles: Iterable[str]) -> None:
        for shingle in shingles:
            self._holders[shingle].append(j)

    def holders(self, shingles: Iterable[str]) -> set[int]:
        found: set[int] = set()
        for shingle in shingles:
            if shingle in self._holders:
                found.update(self._holders[shingle])
        return found


def _rarest(ordered: Sequence[str], share: float) -> Sequence[str]:
    """One of these is in every set that holds at least `share` of them all."""
    return ordered[: len(ordered) - math.ceil(share * len(ordered)) + 1]


def _similarity(a: set[str], b: set[str], least: float) -> float | None:
    """Jaccard where that reaches `least`, else the contained share where that reaches CONTAINED, else None."""
    smaller, larger = sorted((len(a), len(b)))
    if smaller < least * larger and smaller < CONTAINED_LEAST:
        return None
    common = len(a & b)
    jaccard = common / (len(a) + len(b) - common)
    if jaccard >= least:
        return jaccard
    return common / smaller if smaller >= CONTAINED_LEAST and common >= CONTAINED * smaller else None


def _is_same(a: Problem, words_a: Sequence[str], b: Problem, words_b: Sequence[str]) -> bool:
    """Whether two texts that are near ask for the same. In doubt they do: a gold can be written in many ways."""
    answers_a, answers_b = _answers(a), _answers(b)
    if answers_a & answers_b:
        return True
    if all(isinstance(answer, Fraction) for answer in answers_a | answers_b):
        return False
    numbers_a, numbers_b = (sorted(w for w in words if w[0].isdigit()) for words in (words_a, words_b))
    return bool(numbers_a) and numbers_a == numbers_b


def _answers(problem: Problem) -> set[Fraction | str]:
    """The golds as numbers where they are plain ones, else as their tokens. (Of a generated item: its name.)"""
    return {" ".join(words) if (number := _number(words)) is None else number for words in map(tokens, problem.answers)}


def _number(words: Sequence[str]) -> Fraction | None:
    """
    >>> _number(tokens(r"-\\frac{1}{2}")) == _number(tokens("-0.5")) == _number(tokens("-1/2"))
    True
    """
    sign, digits = (-1, words[1:]) if words[:1] == ["-"] else (1, words)
    match digits:
        case [whole] if whole[0].isdigit():
            return sign * Fraction(whole)
        case ["frac", above, below] | [above, "/", below] if above.isdigit() and below.isdigit() and int(below):
            return sign * Fraction(int(above), int(below))
    return None
