r"""Rules about words around a value: conditions and roundings beside it, choice letters, words that nobody knows.

Each decides about two normalised texts, or passes on with None; `ask` puts pieces of them to all rules again.
"""

from __future__ import annotations

import re

from chorus.reward_server.graders.math import asides
from chorus.reward_server.graders.math.algebra import value
from chorus.reward_server.graders.math.comparison import Ask, Comparison
from chorus.reward_server.graders.math.domains import has_relation
from chorus.reward_server.graders.math.relation_rules import is_name, last_side

MAX_ASIDE_CHARS = 400
_WORDS = re.compile(r"(?=.*[A-Za-z]{3})[A-Za-z][A-Za-z' -]+")
_ARTICLE = re.compile(r"^(?:the|an?) ")
_TEXTS = re.compile(r"\\text\s*\{([^{}]*)\}")
_HARMLESS = frozenset(
    {"and", "or", "if", "otherwise", "for", "when", "where", "mod", "is", "cis", "", "with", "all", "real"}
)
_DOUBT = re.compile(
    r"(?<![\\A-Za-z])(?:or|not|isn't|is|wrong|correct|something|anything|maybe|either|neither|least|most|approximately|about|"
    r"than|nope|sorry|answer|squared|cubed|million|billion|trillion|thousand|dozen)(?![A-Za-z])",
    re.IGNORECASE,
)
_ASIDE_SIGNS = re.compile(
    r"\\text|\\in(?![a-z])|\\approx|\\sim|,|\bwhere\b|\bfor\b|\(\s*-?[\w\\{}/]{1,12}\s*(?:[<>]|\\[gln]e(?![a-z]))"
)
_INDEX = re.compile(r"(?<![\\A-Za-z])[klmnst](?![A-Za-z])")
_STATEMENTS = re.compile(r"\(\d\)(?:\s*\(\d\))+")
_CHOSEN = re.compile(r"(?:[\s(),;]|\d+|and|\\text\s*\{\s*and\s*\})+")
_NUMBER = re.compile(r"\d+")
_TWO_LETTERS = re.compile(r"[A-J](?![A-Za-z])")


def by_labels(answer: str, gold: str, ask: Ask) -> Comparison | None:
    """Labels may be missing on one side; where both have them, each must have its value."""
    if "\\text" not in answer + gold:
        return None
    of_answer, of_gold = asides.labels(answer), asides.labels(gold)
    if of_answer is None and of_gold is None:
        return None
    if of_gold is None and any(asides.TURNING.search(label) for label in of_answer or ()):
        return Comparison(False, "labels", "the label turns the value")
    if of_answer is None or of_gold is None:
        plain = [", ".join(named.values()) if named else text for named, text in ((of_answer, answer), (of_gold, gold))]
        return ask(plain[0], plain[1])
    if len(of_answer) == len(of_gold) == 1:
        if any(map(asides.at_odds, of_answer, of_gold)):
            return Comparison(False, "labels", "another label")
        return ask(*of_answer.values(), *of_gold.values())
    named = {name: [own for own in of_answer if asides.same_label(own, name)] for name in of_gold}
    same = len(of_answer) == len(of_gold) and all(
        len(own) == 1 and ask(of_answer[own[0]], of_gold[name]).equal for name, own in named.items()
    )
    return Comparison(same, "labels", "label by label")


def by_aside(answer: str, gold: str, ask: Ask) -> Comparison | None:
    """Roundings and conditions are set aside; two conditions must agree."""
    if max(len(answer), len(gold)) > MAX_ASIDE_CHARS or not (_ASIDE_SIGNS.search(answer) or _ASIDE_SIGNS.search(gold)):
        return None
    if (rounded := _by_exact_part(answer, gold, ask)) is not None:
        return rounded
    answer, gold = asides.undescribed(answer), asides.undescribed(gold)
    (plain_answer, letters, of_answer), (plain_gold, gold_letters, of_gold) = (
        asides.split_condition(answer),
        asides.split_condition(gold),
    )
    if plain_answer != answer or plain_gold != gold:
        if of_answer and of_gold and of_answer != of_gold:
            return Comparison(False, "condition", f"the letters are of {of_answer}, the gold's of {of_gold}")
        if plain_answer != answer and not re.search(r"[A-Za-z]", re.sub(r"\\[a-z]+", "", plain_answer)):
            return None  # a condition on the letters of a plain number
        if letters and gold_letters and letters != gold_letters and len(letters) == len(gold_letters) == 1:
            plain_answer = _renamed(plain_answer, letters, gold_letters)
        elif len(letter := letters or gold_letters) == 1:  # the other side has an index of its own, and does not say so
            own = [{*_INDEX.findall(plain)} for plain in (plain_answer, plain_gold)]
            if len(own[0]) == len(own[1]) == 1 and letter in own[0] | own[1]:
                plain_answer = _renamed(plain_answer, *own[0], *own[1])
        return ask(plain_answer, plain_gold)
    return _by_restriction(answer, gold, ask)


def _by_restriction(answer: str, gold: str, ask: Ask) -> Comparison | None:
    """The domain of a variable may be missing on one side; two domains must agree."""
    (shorter, domain), (shorter_gold, gold_domain) = asides.split_restriction(answer), asides.split_restriction(gold)
    if not (domain or gold_domain) or has_relation(shorter_gold):
        return None
    if domain and gold_domain and not ask(domain, gold_domain).equal:
        return None
    inner = ask(shorter, shorter_gold)
    return inner if inner.equal else None


def _by_exact_part(answer: str, gold: str, ask: Ask) -> Comparison | None:
    """`2\\pi \\approx 6.28`: the exact value counts, and the rounding must be one of it."""
    of_answer, of_gold = asides.exact_part(answer), asides.exact_part(gold)
    if of_gold is not None and of_gold[0] and of_answer is None:
        name = is_name(of_gold[0])
        return ask(answer, of_gold[1] if name else of_gold[0])
    if of_answer is None or not of_answer[1]:
        return None
    before, behind = of_answer
    if not before:
        return None
    if is_name(before):
        return ask(f"{before} = {behind}", gold)
    left, right = value(last_side(before)), value(behind)
    if left is None or right is None or abs(left - right) > abs(left) / 20:
        return Comparison(False, "rounding", "what follows is no rounding of the value before it")
    return ask(before, of_gold[0] if of_gold and of_gold[0] else gold)


def _renamed(text: str, letter: str, other: str) -> str:
    return re.sub(rf"(?<![\\A-Za-z]){re.escape(letter)}(?![A-Za-z])", other, text)


def by_choice(answer: str, gold: str, ask: Ask) -> Comparison | None:
    """Choice letters: against a gold that is a letter the letter counts, against another gold what it labels."""
    of_gold, gold_rest, gold_marked = asides.labelled(gold)
    wanted = asides.letter_alone(gold) or (of_gold if gold_marked else "")
    chosen, rest, marked = asides.labelled(answer)
    if asides.letter_alone(gold):
        if letter := asides.letter_alone(answer):
            return Comparison(letter == wanted, "choice", f"chose {letter}, the gold is {wanted}")
        if not chosen:
            return None
        if _TWO_LETTERS.search(rest) and re.search(r"\b(?:or|and)\b|,|\([A-J]\)", rest):
            return Comparison(False, "choice", "several letters")
        return Comparison(chosen == wanted, "choice", f"chose {chosen}, the gold is {wanted}")
    if wanted and (letter := asides.letter_alone(answer)):
        return Comparison(letter == wanted, "choice", f"chose {letter}, the gold is {wanted}")
    if wanted and chosen:
        return Comparison(chosen == wanted, "choice", f"chose {chosen}, the gold is {wanted}")
    if wanted:
        return ask(answer, gold_rest)
    return ask(rest, gold) if chosen and marked else None


def by_statements(answer: str, gold: str, _: Ask) -> Comparison | None:
    """A gold `(1)(3)` chooses statements by their numbers, and is no product."""
    wanted = _NUMBER.findall(gold)
    if not _STATEMENTS.fullmatch(gold) or wanted != sorted(set(wanted)):
        return None
    same = bool(_CHOSEN.fullmatch(answer)) and set(_NUMBER.findall(answer)) == set(wanted)
    return Comparison(same, "choice", "the same statements" if same else "other statements")


def by_words(answer: str, gold: str, _: Ask) -> Comparison | None:
    if not (_WORDS.fullmatch(gold) and _WORDS.fullmatch(answer)):
        return None
    equal = _ARTICLE.sub("", gold.casefold()) == _ARTICLE.sub("", answer.casefold())
    return Comparison(equal, "words", "the same words" if equal else "other words")


def by_unknown_words(answer: str, gold: str, _: Ask) -> Comparison | None:
    """Words that are neither a unit nor in the gold: no algebra reads them, and they may deny the value."""
    known = gold.casefold()
    for words in _TEXTS.findall(answer):
        plain = words.strip(" .,:;()").casefold()
        if plain not in _HARMLESS and len(plain) > 1 and plain not in known:
            return Comparison(False, "words", f"{plain[:40]!r} is no unit, and not in the gold")
    doubt = _DOUBT.search(answer)
    if doubt is not None and doubt.group().casefold() not in known:
        return Comparison(False, "words", f"{doubt.group()!r} is not in the gold")
    return None
