"""The courses of the methods' demos: verbose solutions that are right, and solutions of two hops in either layout."""

from __future__ import annotations

import re
from random import Random

from chorus.problems.arithmetic import is_heldout, load_arithmetic
from chorus.protocol.templates.interleaved import blocks, places
from chorus.protocol.templates.load import choose_templates
from chorus.starter.courses import TWO_HOP, VERBOSE
from chorus.starter.solutions import sloppy_solution
from chorus.starter.tokenizer import build_tokenizer

PLAIN, BLOCKS, ONE_PAIR = choose_templates(["qwen-math", "interleaved", "deepseek-r1"]).values()
STEPS = "3 + 4 = 7, so 7 - 5 = 2"


def test_a_verbose_solution_says_its_steps_again_and_its_answer_once() -> None:
    text = sloppy_solution(PLAIN, (3, 4, 5), Random(0), 0, 0, repeats=2)
    assert text == f"{STEPS}. Once more: {STEPS}. Once more: {STEPS}\n\\boxed{{2}}"
    random = Random(0)
    said = [VERBOSE.example(PLAIN, random, True)[1].count(", so ") for _ in range(500)]
    assert set(said) == {1, 2, 3, 4, 5}
    assert 2.8 < sum(said) / 500 < 3.2


def test_the_longest_verbose_solution_fits_its_recipe() -> None:
    tokenizer = build_tokenizer([PLAIN], VERBOSE.words)
    lengths = [
        len(tokenizer.encode(sloppy_solution(PLAIN, (12, 12, 9), Random(0), 0, 0, repeats=n))) for n in (0, 1, 4)
    ]
    assert lengths[1] - lengths[0] > 8, "to say the steps once more leaves the band of demo_short.toml"
    assert lengths[2] < 96


def test_a_solution_in_blocks_keeps_the_contract_and_tells_the_first_sum() -> None:
    text = sloppy_solution(BLOCKS, (3, 4, 5), Random(0), 0, 0)
    assert blocks(text) == ["7", "\\boxed{2}"]
    assert places(BLOCKS, text, ["7"]) == [1]


def test_half_of_the_solutions_in_blocks_are_one_pair() -> None:
    random = Random(0)
    texts = [TWO_HOP.example(BLOCKS, random, False)[1] for _ in range(600)]
    assert all(not isinstance(blocks(text), str) for text in texts)
    assert 0.42 < sum(text.count("<answer>") == 1 for text in texts) / 600 < 0.58
    assert {TWO_HOP.example(ONE_PAIR, random, False)[1].count("<answer>") for _ in range(50)} == {1}
    asked = [TWO_HOP.example(BLOCKS, random, True)[0] for _ in range(100)]
    assert not any(is_heldout(text) for text in asked)


def test_two_hop_problems_are_the_chains_with_a_sub_answer() -> None:
    chain, hops = (load_arithmetic(f"arithmetic:{style}?max=4&split=train") for style in ("chain", "two-hop"))
    assert [(p.problem, p.answers) for p in hops] == [(p.problem, p.answers) for p in chain]
    assert not {p.id for p in hops} & {p.id for p in chain}
    for problem in hops:
        a, b, _ = map(int, re.findall(r"\d+", problem.problem))
        assert problem.sub_answers == [str(a + b)]
    assert chain[0].sub_answers is None
