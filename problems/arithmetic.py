"""Synthetic arithmetic with a fixed split into training and held-out problems.

    arithmetic:chain?max=12&split=train      What is 3 + 4 - 5?   (numbers 0..max, result >= 0)
    arithmetic:two-hop?split=train           the same problems, with 3 + 4 as a sub-answer
    arithmetic:one-digit?split=heldout       What is 3 + 4?       (digits 0..9)
    arithmetic:running?split=train           What are the totals of 14, then + 4, ...?   (8 digits up to 4)
    arithmetic:choice?split=train            What is 3 + 4 - 5?   and four results to choose from
    arithmetic:program?split=train           Write a program that reads n and prints n + 3 - 5.   (numbers 1..max)
    arithmetic:chain?above=5&level=3         any of them: problems with a number above 5, with a level

Running totals, 10 to max, come with worked solutions, a line a step. All of them are the answer, so none is right by
chance, or because two slips made up for each other.

Which side a problem is on depends on its text alone (a hash), so the sides stay disjoint whatever `max` is
and whoever reads them: the starter's warm start and the learner see training problems only.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from random import Random
from typing import Literal
from urllib.parse import parse_qsl

from chorus.protocol.messages import Problem

Split = Literal["train", "heldout"]
CHAIN_MAX = 12  # the largest number in a chain problem; sums reach twice this
RUNNING_MAX = 19  # the largest total of a running one
RUNNING_LEAST_MAX = 18
RUNNING_STEPS = 8
RUNNING_DIGITS = (-4, -3, -2, -1, 1, 2, 3, 4)
RUNNING_PROBLEMS = 2000  # both sides together
PROGRAM_MAX = 19
PROGRAM_INPUTS = (0, 7, 40)  # of a program's tests
HELDOUT_SHARE = 0.25  # 475 of the 1,911 chain problems at max = 12


def chain_text(a: int, b: int, c: int) -> str:
    """The words of a chain problem; its answer is a + b - c."""
    return f"What is {a} + {b} - {c}?"


def is_heldout(text: str) -> bool:
    """Whether the problem with this text belongs to the held-out side; stable across runs and machines."""
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    return number < HELDOUT_SHARE * 2**64


def chain_operands(split: Split, max_number: int = CHAIN_MAX) -> Iterator[tuple[int, int, int]]:
    """Every (a, b, c) of one side with 0 <= a, b, c <= max_number and a + b - c >= 0, in order."""
    numbers = range(max_number + 1)
    for a in numbers:
        for b in numbers:
            for c in range(min(max_number, a + b) + 1):
                if is_heldout(chain_text(a, b, c)) == (split == "heldout"):
                    yield a, b, c


def chain_problems(split: Split, max_number: int = CHAIN_MAX) -> list[Problem]:
    """`a + b - c`, two steps each."""
    return [
        _problem(f"chain/{a}+{b}-{c}", chain_text(a, b, c), a + b - c) for a, b, c in chain_operands(split, max_number)
    ]


def two_hop_problems(split: Split, max_number: int = CHAIN_MAX) -> list[Problem]:
    """Chain problems whose first result is a sub-answer. They are on the chain's sides of the split."""
    return [
        _problem(f"two-hop/{a}+{b}-{c}", chain_text(a, b, c), a + b - c, sub_answers=[str(a + b)])
        for a, b, c in chain_operands(split, max_number)
    ]


def one_digit_problems(split: Split, max_number: int = 9) -> list[Problem]:
    """`a + b`, one step, for a pretrained model that shall learn the layout rather than the sums."""
    sums = [(a, b) for a in range(max_number + 1) for b in range(max_number + 1)]
    problems = [_problem(f"one-digit/{a}+{b}", f"What is {a} + {b}?", a + b) for a, b in sums]
    return [problem for problem in problems if is_heldout(problem.problem) == (split == "heldout")]


def running_operands(random: Random, max_number: int = RUNNING_MAX) -> list[int]:
    """A start and RUNNING_STEPS signed digits whose totals stay within 10 to `max_number`."""
    operands = [random.randint(10, max_number)]
    for _ in range(RUNNING_STEPS):
        total = sum(operands)
        operands.append(random.choice([d for d in RUNNING_DIGITS if 10 <= total + d <= max_number]))
    return operands


def running_text(operands: Sequence[int]) -> str:
    """The words of a running-total problem; its answer are the sums of the first two operands, three, and so on."""
    first, *digits = operands
    return f"What are the totals of {first}{''.join(f', then {_signed(d)}' for d in digits)}?"


def running_lines(operands: Sequence[int]) -> list[str]:
    """The worked solution, a line a step."""
    return [f"{_signed(d)} = {total}" for d, total in zip(operands[1:], list(accumulate(operands))[1:], strict=True)]


def running_answer(operands: Sequence[int]) -> str:
    return f"({', '.join(map(str, list(accumulate(operands))[1:]))})"


def _signed(digit: int) -> str:
    return f"{'-' if digit < 0 else '+'} {abs(digit)}"


def running_problems(split: Split, max_number: int = RUNNING_MAX) -> list[Problem]:
    """Eight steps each, with solutions whose last line is the boxed answer. The same whoever asks."""
    if max_number < RUNNING_LEAST_MAX:
        raise ValueError(f"problems 'arithmetic:running': max={max_number} is too small; use {RUNNING_LEAST_MAX} to 99")
    random = Random("running")
    drawn = {running_text(o): o for o in (running_operands(random, max_number) for _ in range(RUNNING_PROBLEMS))}
    problems = []
    for k, (text, operands) in enumerate(drawn.items()):
        if is_heldout(text) == (split == "heldout"):
            answer = running_answer(operands)
            solution = "\n".join([*running_lines(operands), f"\\boxed{{{answer}}}"])
            problems.append(_problem(f"running/{max_number}/{k}", text, answer, solution))
    return problems


def choice_options(a: int, b: int, c: int) -> list[int]:
    """The four results to choose from, the right one among them, in an order that follows from the problem alone."""
    text, right = chain_text(a, b, c), a + b - c
    others = [right + k for k in (-3, -2, -1, 1, 2, 3) if right + k >= 0]

    def place(number: int) -> bytes:
        return hashlib.blake2b(f"{text}\0{number}".encode(), digest_size=8).digest()

    return sorted([right, *sorted(others, key=place)[:3]], key=lambda number: place(number + 1000))


def choice_text(a: int, b: int, c: int) -> str:
    """The words of a multiple-choice problem, its options included."""
    letters = "".join(f"\n({'ABCD'[k]}) {number}" for k, number in enumerate(choice_options(a, b, c)))
    return f"{chain_text(a, b, c)}\n{letters}"


def choice_problems(split: Split, max_number: int = CHAIN_MAX) -> list[Problem]:
    """Chain problems with four options. They are on the chain's sides of the split."""
    problems = []
    for a, b, c in chain_operands(split, max_number):
        letter = "ABCD"[choice_options(a, b, c).index(a + b - c)]
        problem = _problem(f"choice/{a}+{b}-{c}", choice_text(a, b, c), letter)
        problems.append(problem.model_copy(update={"kind": "choice", "domain": "choice"}))
    return problems


def program_text(a: int, b: int) -> str:
    return f"Write a program that reads n and prints n + {a} - {b}."


def program_operands(split: Split, max_number: int = PROGRAM_MAX) -> list[tuple[int, int]]:
    """Every (a, b) of one side, in order."""
    pairs = [(a, b) for a in range(1, max_number + 1) for b in range(1, max_number + 1)]
    return [pair for pair in pairs if is_heldout(program_text(*pair)) == (split == "heldout")]


def program_problems(split: Split, max_number: int = PROGRAM_MAX) -> list[Problem]:
    """Programs of one line, each with tests of its output."""
    return [
        Problem(
            id=f"program/+{a}-{b}",
            problem=program_text(a, b),
            tests=json.dumps([{"input": f"{n}\n", "output": f"{n + a - b}\n"} for n in PROGRAM_INPUTS]),
            kind="code",
            domain="code",
            source="arithmetic",
        )
        for a, b in program_operands(split, max_number)
    ]


STYLES: dict[str, tuple[Callable[..., list[Problem]], int]] = {  # name: problems, largest number unless told
    "chain": (chain_problems, CHAIN_MAX),
    "two-hop": (two_hop_problems, CHAIN_MAX),
    "one-digit": (one_digit_problems, 9),
    "running": (running_problems, RUNNING_MAX),
    "choice": (choice_problems, CHAIN_MAX),
    "program": (program_problems, PROGRAM_MAX),
}


def load_arithmetic(spec: str) -> list[Problem]:
    """Problems of `arithmetic:STYLE[?max=N&split=train|heldout&above=N&level=N]`; split defaults to train.

    Raises ValueError for a style, an option or a value that is not known.
    """
    style, _, query = spec.removeprefix("arithmetic:").partition("?")
    if style not in STYLES:
        raise ValueError(f"problems {spec!r}: style {style!r} is unknown; use one of {', '.join(STYLES)}")
    make, max_number = STYLES[style]
    split: Split = "train"
    level = above = None
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key == "split" and (value == "train" or value == "heldout"):
            split = value
        elif key == "max" and value.isdecimal() and 1 <= int(value) <= 99:
            max_number = int(value)
        elif key == "level" and value.isdecimal():
            level = int(value)
        elif key == "above" and value.isdecimal() and int(value) < max_number:
            above = int(value)
        else:
            raise ValueError(
                f"problems {spec!r}: {key}={value} is not understood; use split=train, split=heldout, "
                "max=1 to 99, above=N (less than max), or level=N"
            )
    problems = make(split, max_number)
    if above is not None:
        problems = [p for p in problems if max(map(int, re.findall(r"\d+", p.problem))) > above]
    return problems if level is None else [p.model_copy(update={"level": level}) for p in problems]


def _problem(
    name: str, text: str, answer: int | str, solution: str | None = None, sub_answers: list[str] | None = None
) -> Problem:
    return Problem(
        id=name,
        problem=text,
        answers=[str(answer)],
        solution=solution,
        kind="math",
        level=None,
        domain="arithmetic",
        source="arithmetic",
        sub_answers=sub_answers,
    )
