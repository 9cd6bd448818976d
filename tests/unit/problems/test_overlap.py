"""Shared problems: exactly the planted ones are found, and the join loses none that brute force would find."""

from __future__ import annotations

import random

import pytest
from planted import EDITS, PROBLEMS, SAME

from chorus.problems.overlap import CONTAINED, CONTAINED_LEAST, LEAST, _join, find_overlaps, tokens
from chorus.problems.sources import Placed
from chorus.protocol.messages import Problem


def placed(*problems: tuple[str, str], file: str = "set.jsonl") -> list[Placed]:
    return [
        Placed(f"{file}:{n}", Problem(id=f"{file}/{n}", problem=text, answers=[answer]), {"problem": text})
        for n, (text, answer) in enumerate(problems, 1)
    ]


BASE = placed(*PROBLEMS, file="test.jsonl")


def test_no_two_of_the_planted_problems_overlap():
    assert find_overlaps(BASE) == []


@pytest.mark.parametrize("edit", SAME)
def test_what_only_looks_different_is_exactly_the_same(edit: str):
    edited = placed(*((SAME[edit](text), answer) for text, answer in PROBLEMS))
    found = [(o.left.where, o.right.where, o.kind, o.similarity) for o in find_overlaps(edited, BASE)]
    assert found == [(f"set.jsonl:{n}", f"test.jsonl:{n}", "exact", 1.0) for n in range(1, len(PROBLEMS) + 1)]


@pytest.mark.parametrize("edit", EDITS)
def test_a_paraphrase_of_some_words_is_found_and_nothing_else_is(edit: str):
    edited = placed(*((EDITS[edit](text), answer) for text, answer in PROBLEMS))
    found = {(o.left.where.split(":")[1], o.right.where.split(":")[1]) for o in find_overlaps(edited, BASE)}
    assert found == {(str(n), str(n)) for n in range(1, len(PROBLEMS) + 1)}


def test_all_edits_at_once_are_one_step_too_far_for_some():
    """The recall of the default bound where a problem is rewritten throughout; what it says of its limits is true."""

    def rewritten(text: str) -> str:
        for edit in EDITS.values():
            text = edit(text)
        return text

    found = find_overlaps(placed(*((rewritten(text), answer) for text, answer in PROBLEMS)), BASE)
    assert {o.left.where.split(":")[1] == o.right.where.split(":")[1] for o in found} == {True}
    assert len(PROBLEMS) // 4 <= len(found) < len(PROBLEMS)


def test_other_numbers_and_another_answer_make_a_variant():
    text, answer = PROBLEMS[0]
    variant = text.replace("14 trays", "16 trays").replace("24 cookies", "36 cookies")
    [overlap] = find_overlaps(placed((variant, "144")), placed((text, answer)))
    assert overlap.kind == "variant"


@pytest.mark.parametrize(("edited", "answer"), [("18 trays", "84"), ("14 trays", "other")])
def test_the_same_answer_or_the_same_numbers_make_it_near(edited: str, answer: str):
    text = PROBLEMS[0][0].replace("14 trays", edited).replace("Maria", "Sofia")
    [overlap] = find_overlaps(placed((text, answer)), placed(PROBLEMS[0]))
    assert overlap.kind == "near"


def test_a_problem_within_a_longer_one_is_near():
    story = (
        "It is a warm day in June, and the whole village has come together on the market square to celebrate. There "
        "are stalls with lemonade, games for children, music by a small band, and everybody has a hat made of paper. "
        "Behind the town hall somebody has put up long tables, where neighbours talk until late in the evening. "
    )
    [overlap] = find_overlaps(placed((story + PROBLEMS[0][0], "84")), placed(PROBLEMS[0]))
    assert (overlap.kind, overlap.similarity) == ("near", pytest.approx(1.0, abs=0.01))


def test_equal_words_beside_other_diagrams_are_variants_unless_the_answers_agree():
    def drawn(angle: int) -> str:
        return f"What is the value of $x$ in the diagram?\n[asy]\ndraw(Arc((0,0),1,0,{angle}));\n[/asy]"

    assert [o.kind for o in find_overlaps(placed((drawn(30), "30")), placed((drawn(45), "45")))] == ["variant"]
    assert [o.kind for o in find_overlaps(placed((drawn(30), "30")), placed((drawn(31), "30")))] == ["exact"]
    text = "What is the value of $x$ in $2x = 60$?"
    assert [o.kind for o in find_overlaps(placed((text, "30")), placed((text, "31")))] == ["exact"]  # a wrong gold


def test_a_short_sentence_within_a_long_problem_is_no_overlap():
    assert find_overlaps(placed(("Find the length of segment $CD$.", "3")), BASE) == []


def test_within_a_set_each_pair_is_found_once_with_the_earlier_problem_on_the_right():
    doubled = placed(PROBLEMS[0], PROBLEMS[1], (EDITS["other verbs"](PROBLEMS[0][0]), "84"), PROBLEMS[1])
    found = [(o.left.where, o.right.where, o.kind) for o in find_overlaps(doubled)]
    assert found == [("set.jsonl:3", "set.jsonl:1", "near"), ("set.jsonl:4", "set.jsonl:2", "exact")]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("least", [0.3, LEAST, 0.9])
def test_the_join_finds_what_comparing_every_pair_finds(seed: int, least: float):
    rng = random.Random(seed)
    # Few words, some of them common: overlaps of every size, long and short sets.
    words = [f"w{int(rng.paretovariate(0.6)) % 300}" for _ in range(4000)]

    def some() -> set[str]:
        start = rng.randrange(3900)
        return set(words[start : start + rng.choice([1, 3, 12, 40, 80])]) | set(rng.sample(words, 3))

    left, right = [some() for _ in range(60)], [some() for _ in range(60)]
    left += [set(rng.sample(sorted(r), max(1, round(len(r) * rng.uniform(0.4, 1))))) for r in right[:40]]

    def similar(a: set[str], b: set[str]) -> bool:
        smaller = min(len(a), len(b))
        contained = smaller >= CONTAINED_LEAST and len(a & b) / smaller >= CONTAINED
        return len(a & b) / len(a | b) >= least or contained

    wanted = {(i, j) for i, a in enumerate(left) for j, b in enumerate(right) if similar(a, b)}
    assert len(wanted) > 5
    assert {(i, j) for i, j, _ in _join(left, right, least, within=False)} == wanted
    inside = {(i, j) for i, a in enumerate(left) for j, b in enumerate(left[:i]) if similar(a, b)}
    assert {(i, j) for i, j, _ in _join(left, left, least, within=True)} == inside


def test_texts_without_words_or_in_another_script_are_compared_too():
    assert tokens("求三角形的面积") != tokens("求三角形的周长")
    assert tokens("???") != tokens("!!!")
    assert find_overlaps(placed(("???", "1")), placed(("!!!", "1"))) == []
